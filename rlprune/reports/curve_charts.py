"""Charts of the course of a run: the search, accuracy and MACs of all it has evaluated, the fine-tuning."""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from rlprune.reports.records import Record
from rlprune.reports.vega import WIDE, Chart, Row, colour, run_colour
from rlprune.utils.criteria import DEFAULT, parse_criteria
from rlprune.utils.text import percent

HEIGHT = 260
SMOOTH = 10
"""Batches over which the rewards of agents are averaged."""
BEST = "best so far"
LINES = {BEST: ("accent", [1, 0]), "sensitivity rule": ("second", [6, 3]), "uniform": ("ink", [2, 3])}
SEARCH, PROBE, FRONT, FINAL = "search", "one group cut", "front", "final plan"
KINDS = {
    SEARCH: ("accent", "circle"),
    PROBE: ("muted", "square"),
    FRONT: ("accent", "stroke"),
    FINAL: ("second", "diamond"),
}


def search(records: Sequence[Record]) -> Chart | None:
    """The loss of every plan, the best so far and the baselines; a search over a range has no best plan."""
    lines = [row for record in records for row in _steps(record.name, record.plans, record.baselines())]
    if not lines:
        return None
    plans = [row for record in records for row in _plans(record)]
    led = {row["run"] for row in lines}
    dots = [row for row in plans if row["kind"] == SEARCH and row["run"] in led]
    losses = [row["loss"] for row in dots]
    frame = _frame(losses, [row["loss"] for row in lines if row["line"] != BEST])
    first, last = min(row["evaluation"] for row in dots), max(row["evaluation"] for row in plans)
    caption = "Loss of every plan, before fine-tuning, and the best so far. Lower is better."
    caption += " In the grey band the sensitivities are measured." if first > 1 else ""
    if any(record.best_losses().diff().gt(0).any() for record in records):
        caption += " The best rises where the model of the latency was corrected and no longer admits it."
    outside = sum(loss > frame[1] for loss in losses)
    caption += f" {outside} of {len(dots)} plans lie above the picture." if outside else ""
    drawing = alt.layer(*_probed(first, last), *_searched([record.name for record in records], lines, frame))
    summary = ", ".join(_search_summary(record) for record in records)
    data = {"plans": plans, "lines": lines}
    return Chart("search", "Search", caption, summary, drawing.properties(height=HEIGHT, **WIDE), data)


def tunings(records: Sequence[Record]) -> Chart | None:
    """The same for the plans that were fine-tuned, briefly or for longer."""
    lines = [row for record in records for row in _tuned_steps(record)]
    if not lines:
        return None
    plans = [row for record in records for row in _rows(record.name, record.tuned, "tuning")]
    frame = _frame([row["loss"] for row in plans], [row["loss"] for row in lines])
    data = {"tuned": plans, "tuned-lines": lines}
    titles = ("fine-tunings of plans", "loss on images held out, nats")
    drawing = alt.layer(*_searched([record.name for record in records], lines, frame, ("tuned", "tuned-lines"), titles))
    tuned = {record.name: record.tuned["best_loss"].min() for record in records if len(record.tuned)}
    summary = ", ".join(f"{name}: best loss {loss:.4g}" for name, loss in tuned.items())
    caption = "Loss of plans after a brief fine-tuning, and the best so far. Lower is better."
    if any(record.tuned["stage"].nunique() > 1 for record in records):
        caption += " Where it starts anew the best plans go on with longer fine-tunings of fewer plans."
    return Chart("tunings", "Tunings", caption, summary, drawing.properties(height=HEIGHT, **WIDE), data)


def front(records: Sequence[Record]) -> Chart | None:
    """Accuracy against MACs of every plan, the front that no cheaper one beats, and the plan that was taken."""
    plans = [row for record in records for row in _plans(record)]
    if not plans:
        return None
    best = [row for record in records for row in _on_front(record)]
    final = [row for record in records for row in _final(record)]
    data = {"plans": plans, "front": best, **({"final": final} if final else {})}
    kinds = {row["kind"] for name, rows in data.items() for row in rows if name != "front" or len(records) == 1}
    layers = _traded([record.name for record in records], kinds)
    drawing = alt.layer(*(layer for name, layer in layers.items() if name in data)).properties(height=HEIGHT, **WIDE)
    caption = "Every plan that was evaluated, before fine-tuning."
    caption += " No plan of the front (line) has a lower loss at no higher cost."
    summary = f"{len(plans)} plans, {len(best)} of them on the front"
    return Chart("front", "Accuracy and cost", caption, summary, drawing, data)


def agents(records: Sequence[Record]) -> Chart | None:
    """The rewards of the agents of runtime pruning, batch by batch, one line an agent."""
    rows = [row for record in records for row in _turns(record)]
    if not rows:
        return None
    several = len(records) > 1
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    dash = alt.StrokeDash("kind:N", scale=_scale(kinds, [[1, 0], [4, 3]][: len(kinds)]), legend=alt.Legend(title=None))
    base = alt.Chart(alt.NamedData("agents")).encode(
        x=alt.X("batch:Q", title="batches of images an agent has learnt from", scale=alt.Scale(nice=False)),
        y=alt.Y("reward:Q", title="mean reward of the last batches", scale=alt.Scale(zero=False)),
        color=run_colour([record.name for record in records]),
    )
    drawing = alt.layer(
        base.mark_line(strokeWidth=2, aria=False).encode(detail=["run:N", "kind:N"], strokeDash=dash),
        base.mark_point(filled=True, size=8, opacity=0.4).encode(description="told:N"),
    ).properties(height=HEIGHT, **WIDE)
    last = {(row["run"], row["kind"]): row["told"] for row in rows}
    summary = ", ".join(f"{run}, {told}" if several else told for (run, _), told in last.items())
    caption = (
        f"Minus the loss relative to what is usual, minus what exceeds the budget; means over {SMOOTH} batches. "
        "Between its turns the network is trained, and what is usual is measured anew."
    )
    return Chart("agents", "Agents", caption, summary, drawing, {"agents": rows})


def finetune(records: Sequence[Record]) -> Chart | None:
    """Accuracy on the training batches after every epoch."""
    rows = [row for record in records for row in _epochs(record)]
    if not rows:
        return None
    last = max(row["epoch"] for row in rows)
    ticks = alt.Axis(values=list(range(0, last + 1, max(last // 8, 1))), format="d")
    base = alt.Chart(alt.NamedData("finetune")).encode(
        x=alt.X("epoch:Q", title="epoch", axis=ticks, scale=alt.Scale(nice=False)),
        y=alt.Y("accuracy:Q", title="accuracy on the training batches, %", scale=alt.Scale(zero=False)),
        color=run_colour([record.name for record in records]),
    )
    drawing = alt.layer(
        base.mark_line(strokeWidth=2, aria=False).encode(detail="run:N"),
        base.mark_point(filled=True, size=30, opacity=1).encode(description="told:N"),
    ).properties(height=HEIGHT, **WIDE)
    ends = {row["run"]: row["told"] for row in rows}
    summary = ", ".join(f"{run}: {told}" for run, told in ends.items())
    caption = "Mean over the training batches of every epoch."
    return Chart("finetune", "Fine-tuning", caption, summary, drawing, {"finetune": rows})


def _searched(
    names: list[str],
    lines: list[Row],
    frame: tuple[float, float],
    data: tuple[str, str] = ("plans", "lines"),
    titles: tuple[str, str] = ("evaluations", "loss on the search images, nats"),
) -> tuple[alt.Chart, ...]:
    """Dots and lines; a run alone has a colour a line, several have a colour each."""
    several, led = len(names) > 1, list(dict.fromkeys(row["run"] for row in lines))
    kinds = {line: LINES[line] for line in LINES if any(row["line"] == line for row in lines)}
    legend = alt.Legend(orient="bottom", offset=8) if several else alt.Legend()
    dash = alt.StrokeDash("line:N", scale=_scale(kinds, [dash for _, dash in kinds.values()]), legend=legend)
    hue = alt.Color("line:N", scale=_scale(kinds, [colour(name) for name, _ in kinds.values()]))
    base = alt.Chart(alt.NamedData(data[0])).encode(
        x=alt.X("evaluation:Q", title=titles[0], scale=alt.Scale(nice=False)),
        y=alt.Y("loss:Q", title=titles[1], scale=alt.Scale(domain=frame, nice=False)),
    )
    dots = (
        base.transform_filter(alt.datum.kind == SEARCH)
        .transform_filter(alt.FieldOneOfPredicate(field="run", oneOf=led))
        .mark_point(filled=True, size=22, opacity=0.5, clip=True)
        .encode(color=run_colour(names) if several else alt.value(colour("muted")), description="told:N")
    )
    steps = base.mark_line(interpolate="step-after", strokeWidth=2, clip=True, aria=False).encode(
        color=run_colour(names) if several else hue, strokeDash=dash, detail="run:N"
    )
    return dots, steps.properties(data=alt.NamedData(data[1]))


def _traded(names: list[str], there: set[str]) -> dict[str, alt.Chart]:
    """The layers of accuracy against MACs by their data, with a legend of the kinds of marks that are there."""
    several, kinds = len(names) > 1, {kind: KINDS[kind] for kind in KINDS if kind in there}
    legend = alt.Legend(orient="bottom", offset=8) if several else alt.Legend()
    shape = alt.Shape("kind:N", scale=_scale(kinds, [shape for _, shape in kinds.values()]), legend=legend)
    tint = alt.Color("kind:N", scale=_scale(kinds, [colour(name) for name, _ in kinds.values()]))
    base = alt.Chart(alt.NamedData("plans")).encode(
        x=alt.X("macs:Q", title="MACs kept, %", scale=alt.Scale(zero=False)),
        y=alt.Y("accuracy:Q", title="accuracy on the search images, %", scale=alt.Scale(zero=False)),
        color=run_colour(names) if several else tint,
    )
    points = base.encode(shape=shape, description="told:N")
    line = base.mark_line(interpolate="step-after", strokeWidth=2, aria=False).encode(detail="run:N", order="macs:Q")
    large = points.mark_point(filled=True, size=130, opacity=1, stroke=colour("card"), strokeWidth=1.5)
    return {
        "plans": points.mark_point(filled=True, size=22, opacity=0.45),
        "front": line.properties(data=alt.NamedData("front")),
        "final": large.properties(data=alt.NamedData("final")),
    }


def _scale(names: Iterable[str], values: Sequence[Any]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=values)


def _probed(first: int, last: int) -> tuple[alt.Chart, ...]:
    """A band over the evaluations before the first plan of a search, which measure what cutting one group costs."""
    if first < 2:
        return ()
    once = alt.Chart(alt.Data(values=[{}]))
    band = once.mark_rect(color=colour("soft"), aria=False).encode(x=alt.datum(0), x2=alt.datum(first - 0.5))
    room = alt.ExprRef(f"width * {first / last:.3f} > 80 ? 1 : 0")
    words = once.mark_text(color=colour("muted"), fontSize=12, aria=False, text="sensitivities", opacity=room)
    return band, words.encode(x=alt.datum(first / 2), y=alt.value(HEIGHT / 2))


def _frame(dots: list[float], baselines: list[float]) -> tuple[float, float]:
    """What lies above 19 of 20 plans is cut off: first plans may be many times worse."""
    high, low = max([float(np.quantile(dots, 0.95)), *baselines]), min([*dots, *baselines])
    margin = max(0.06 * (high - low), 1e-3 * abs(low), 1e-6)
    return low - margin, high + margin


def _steps(name: str, plans: pd.DataFrame, baselines: dict[str, float]) -> list[Row]:
    """The best loss wherever it falls, and the baselines from end to end."""
    best = plans["best_loss"]
    falls = plans[best.notna() & (best != best.shift())]
    if falls.empty:
        return []
    first, last = int(falls["evaluation"].iloc[0]), int(plans["evaluation"].iloc[-1])
    points = [(BEST, int(row["evaluation"]), float(row["best_loss"])) for row in falls.to_dict("records")]
    points.append((BEST, last, points[-1][2]))
    for line, loss in baselines.items():
        points += [(line, first, loss), (line, last, loss)]
    return [{"run": name, "line": line, "evaluation": number, "loss": loss} for line, number, loss in points]


def _tuned_steps(record: Record) -> list[Row]:
    """The best loss after fine-tunings of every length; the baselines have had the brief one.

    A few that only choose between plans make no curve.
    """
    if "choice" in record.result:
        return []
    lengths = record.tuned.groupby("stage", sort=False)
    baselines: list[dict[str, float]] = [record.tuned_baselines(), *[{}] * (len(lengths) - 1)]
    return [
        row for (_, plans), lines in zip(lengths, baselines, strict=False) for row in _steps(record.name, plans, lines)
    ]


def _search_summary(record: Record) -> str:
    others = "".join(f", {name} {loss:.4g}" for name, loss in record.baselines().items())
    return f"{record.name}: best loss {record.best_loss():.4g}{others}"


def _plans(record: Record) -> list[Row]:
    return _rows(record.name, record.plans, "evaluation")


def _rows(name: str, plans: pd.DataFrame, what: str) -> list[Row]:
    """A dot a plan, with what is told of it."""
    rows = []
    for plan in plans.to_dict("records"):
        kind = PROBE if plan["stage"] == "sensitivity" else SEARCH
        shares = {"accuracy": round(100 * plan["accuracy"], 4), "macs": round(100 * plan["macs_ratio"], 4)}
        where = kind if what == "evaluation" else plan["stage"]
        told = (
            f"{what} {plan['evaluation']}, {where}; loss {plan['loss']:.4g}, accuracy {percent(plan['accuracy'])}; "
            f"MACs kept {percent(plan['macs_ratio'])}, parameters {percent(plan['params_ratio'])}"
        )
        facts: Row = {"evaluation": int(plan["evaluation"]), "kind": kind, "loss": plan["loss"], **shares}
        rows.append({"run": name, **facts, "told": told})
    return rows


def _on_front(record: Record) -> list[Row]:
    """The plans that no cheaper one beats: as a search over a range has marked them, or by MACs and loss."""
    plans = record.plans
    if "front.csv" in record.tables:
        marked = plans["counts"].isin(record.tables["front.csv"]["counts"])
        order = plans[marked].sort_values("macs_ratio")
    else:
        order = plans.sort_values(["macs_ratio", "loss"])
        order = order[order["loss"] < order["loss"].cummin().shift(fill_value=float("inf"))]
    shares = zip(100 * order["accuracy"], 100 * order["macs_ratio"], strict=True)
    return [{"run": record.name, "kind": FRONT, "accuracy": accuracy, "macs": macs} for accuracy, macs in shares]


def _final(record: Record) -> list[Row]:
    """The plan that the network was pruned to, if the search itself has measured it."""
    table = record.tables.get("ratios.csv")
    if table is None:
        return []
    plan, names = table["kept"].tolist(), parse_criteria(str(record.settings.get("criterion", DEFAULT))).names
    # As in the log, the numbers of the criteria that an agent has chosen stand behind the counts.
    plan += [names.index(name) for name in table["criterion"]] if len(names) > 1 and "criterion" in table else []
    taken = record.plans["counts"] == " ".join(map(str, plan))
    rows = [row for row, here in zip(_plans(record), taken, strict=True) if here]
    return [row | {"kind": FINAL, "told": f"final plan: {row['told']}"} for row in rows]


def _turns(record: Record) -> list[Row]:
    """Smoothed rewards, with the batches of all turns of an agent counted on."""
    rows = []
    for kind, turns in record.tables.get("agents.csv", pd.DataFrame({"kind": []})).groupby("kind", sort=False):
        smooth = turns["reward"].rolling(SMOOTH, min_periods=1).mean()
        for batch, (reward, macs) in enumerate(zip(smooth, turns["macs_ratio"], strict=True), start=1):
            told = f"{kind} agent, batch {batch}: reward {reward:.3f}, MACs {percent(macs)}"
            rows.append({"run": record.name, "kind": str(kind), "batch": batch, "reward": float(reward), "told": told})
    return rows


def _epochs(record: Record) -> list[Row]:
    rows = []
    for epoch in record.tables.get("finetune.csv", pd.DataFrame()).to_dict("records"):
        told = f"epoch {epoch['epoch']}: accuracy {percent(epoch['accuracy'])}, loss {epoch['loss']:.4g}"
        facts = {"epoch": int(epoch["epoch"]), "accuracy": 100 * epoch["accuracy"], "told": told}
        rows.append({"run": record.name, **facts})
    return rows
