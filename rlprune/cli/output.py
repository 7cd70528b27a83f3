"""What a command prints when it is done: the same on a terminal, without colours and in a pipe."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from rich import box
from rich.bar import Bar
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rlprune.reports.words import Fact, Result, closing, effort, heading, network_file, spread
from rlprune.utils.text import TAKEN_OUT, count, duration, milliseconds, percent


def show(command: str, result: Result, console: Console) -> None:
    """Print the result of a command of the command line.

    Args:
        command: search, compare, replay, train, finetune, eval, prune, export, report, bench or inspect.
        result: what the command returned; plain numbers, texts, lists and dicts.
        console: where to print; group names stay whole however narrow it is.
    """
    SHOWN[command](result, console)


def _say(console: Console, facts: Iterable[Fact]) -> None:
    """One line a fact, never wrapped: a path that was broken in two cannot be copied."""
    for label, value, note in facts:
        console.print(
            Text.assemble((f"{label:<9} ", "dim"), (value, "bold"), (f" ({note})" if note else "", "")), soft_wrap=True
        )


def _put(console: Console, table: Table) -> None:
    """Print a table whose names stay whole even where the console is too narrow for them."""
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(console.measure(cell).maximum for cell in (column.header, *column.cells))
    least = console.measure(table, options=console.options.update_width(10_000)).minimum
    if least > console.width:
        table.width = least
    console.print()
    console.print(table, crop=False)
    console.print()


def _table(*columns: tuple[str, str]) -> Table:
    """An empty table; every column has a title and holds a "name", a "number" or a "list"."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, header_style="dim")
    for title, kind in columns:
        table.add_column(title, justify="right" if kind == "number" else "left", no_wrap=kind != "list")
    return table


def _counted(unit: str | None) -> str:
    """What the numbers of a group are of."""
    return "channels" if unit in (None, "channel") else "slices"


def _ratios(console: Console, rows: list[dict[str, Any]], unit: str | None = None) -> None:
    longest = max((len(str(row["group"])) for row in rows), default=0)
    named = max((2 + len(row.get("criterion", "")) for row in rows if "criterion" in row), default=0)
    bar = min(console.width - longest - named - 45, 20)
    titles = [("group", "name"), *((title, "number") for title in (_counted(unit), "kept", "ratio", "tied"))]
    several = any("criterion" in row for row in rows)
    table = _table(*titles, *([("criterion", "name")] if several else []), *([("", "name")] if bar > 4 else []))
    for row in rows:
        ratio = row["keep_ratio"]
        told = percent(ratio) if row["kept"] else TAKEN_OUT
        texts = (str(row["group"]), str(row["channels"]), str(row["kept"]), told, f"+{row['tied']}")
        cells = [Text(text) for text in texts[:-1]] + [Text(texts[-1] if row["tied"] else "")]
        cells += [Text(row["criterion"])] if several else []
        table.add_row(*cells, *([Bar(1, 0, ratio, width=bar, color="cyan")] if bar > 4 else []))
    _put(console, table)


def _pruning(result: Result, console: Console) -> None:
    console.print(Text(heading(result), "bold"))
    if result.get("evaluations") is not None:
        console.print(Text(effort(result), "dim"))
    _ratios(console, result["table"], result.get("unit"))
    _say(console, closing(result))


def _replay(result: Result, console: Console) -> None:
    _pruning(result, console)
    if home := result.get("home"):
        _say(console, [("home", home["kind"], f"distance {home['distance']:.2f}; {home['meaning']}")])


def _search(result: Result, console: Console) -> None:
    if "networks" in result:
        for each in result["networks"]:
            _search(each, console)
            console.print()
        _say(console, closing(result))
        return
    if "methods" in result:
        _runtime(result, console)
        return
    if "plans" not in result:
        _pruning(result, console)
        return
    console.print(Text(heading(result), "bold"))
    console.print(Text(effort(result), "dim"))
    table = _table(
        ("budget", "name"), *((title, "number") for title in ("rule", "search loss", "search", "MACs", "params"))
    )
    for plan in result["plans"]:
        shares = (plan["search_accuracy"], plan["macs_ratio"], plan["params_ratio"])
        losses = (f"{plan['base_loss']:.3f}", f"{plan['search_loss']:.3f}")
        table.add_row(*(Text(text) for text in (plan["budget"], *losses, *map(percent, shares))))
    _put(console, table)
    console.print(Text("rule: search loss of the sensitivity rule; search: accuracy on the search images\n", "dim"))
    _say(console, closing(result))


def _runtime(result: Result, console: Console) -> None:
    """Runtime pruning: every way of choosing channels with its three costs."""
    console.print(Text(f"{heading(result)}, mean over images", "bold"))
    console.print(Text(f"{duration(result['seconds'])} in all", "dim"))
    titles = ("test", "MACs", "5 %", "95 %", "stored", "with gates", "dense ms", "ms")
    table = _table(("method", "name"), *((title, "number") for title in titles))
    for row in result["methods"]:
        names = ("test_accuracy", "macs_ratio", "macs_p5", "macs_p95", "stored_ratio", "stored_with_gates")
        times = [f"{row['latency'][name]:.2f}" for name in ("dense_ms", "pruned_ms")]
        table.add_row(*(Text(text) for text in (row["method"], *(percent(row[name]) for name in names), *times)))
    _put(console, table)
    told = "MACs: mean over the test images and quantiles; stored: parameters, without and with predictors and agent"
    console.print(Text(f"{told}\n", "dim"))
    _say(console, [("dense", percent(result["methods"][0]["dense_accuracy"]), "accuracy on the test images")])
    _say(console, [("results", result["run"], "rlprune.load(FOLDER).set_budget(B) moves a network in use")])


def _compare(result: Result, console: Console) -> None:
    console.print(Text(heading(result), "bold"))
    runs = f"{result['seeds']} run{'s' * (result['seeds'] > 1)} of every method"
    console.print(Text(f"{runs}, each at most {effort(result)}", "dim"))
    tuned = result["methods"][0]["tuned_accuracy"] is not None
    titles = ["search loss", "search", "test", *(["tuned"] if tuned else []), "plans", "seconds", "own"]
    table = _table(("method", "name"), *((title, "number") for title in titles))
    for row in result["methods"]:
        cells = [row["method"], spread(row, "search_loss", 1, 3), spread(row, "search_accuracy", 100, 1)]
        cells += [spread(row, name, 100, 1) for name in ("test_accuracy", *(["tuned_accuracy"] if tuned else []))]
        cells += [f"{row['evaluations']:.0f}", f"{row['seconds']:.1f}", f"{100 * row['own_share']:.0f} %"]
        table.add_row(*map(Text, cells))
    _put(console, table)
    key = "search, test: accuracy in %; plans: evaluations; own: share of time outside them\n"
    console.print(Text(key, "dim"))
    for remark in (remark for row in result["methods"] for remark in row["remarks"]):
        console.print(Text(remark))
    dense = ("dense", percent(result["dense_accuracy"], 2), "test accuracy")
    _say(console, [dense, ("results", result["run"], "comparison.png, cells.csv, curves.csv")])
    if result["verdict"]:
        console.print(Text(result["verdict"], "bold"), soft_wrap=True)


def _train(result: Result, console: Console) -> None:
    accuracy = ("accuracy", percent(result["test_accuracy"], 2), f"test; loss {result['test_loss']:.4f}")
    size = ("MACs", count(result["macs"]), f"params {count(result['params'])}")
    epochs = ("epochs", str(result["epochs"]), duration(result["seconds"]))
    _say(console, [accuracy, size, epochs, ("results", result["checkpoint"], "")])


def _finetune(result: Result, console: Console) -> None:
    accuracy = ("accuracy", f"{percent(result['before'], 2)} → {percent(result['after'], 2)}", "test")
    epochs = ("epochs", str(result["epochs"]), duration(result["seconds"]))
    _say(console, [accuracy, epochs, ("results", result["pruned"], "")])


def _eval(result: Result, console: Console) -> None:
    def size(label: str, key: str) -> Fact:
        ratio = result.get(f"{key}_ratio")
        note = "" if ratio is None else f"kept {percent(ratio)}, removed {percent(1 - ratio)}"
        return (label, count(result[key]), note)

    accuracy = ("accuracy", percent(result["test_accuracy"], 2), f"test; loss {result['test_loss']:.4f}")
    _say(console, [("network", result["what"], ""), accuracy, size("MACs", "macs"), size("params", "params")])


def _bench(result: Result, console: Console) -> None:
    pruned = result["macs_ratio"] is not None
    ideal = f": MACs {count(result['dense_macs'])} → {count(result['pruned_macs'])}" if pruned else ""
    console.print(Text(f"{result['model']}{ideal}, {result['machine']}", "bold"), soft_wrap=True)
    sides = ("dense", "pruned") if pruned else ("dense",)
    numbers = [title for side in sides for title in (side, "p95")] + (["faster", "ideal"] if pruned else [])
    table = _table(("backend", "name"), *((title, "number") for title in ("batch", "threads", *numbers)))
    for row in (row for row in result["results"] if not row["refused"]):
        cells = [row["backend"] + ("" if row["device"] == "cpu" else f" {row['device']}"), row["batch"], row["threads"]]
        cells += [milliseconds(row[side][name]) for side in sides for name in ("median", "p95")]
        cells += [f"{row['speed_up']:.2f} ×", f"{1 / result['macs_ratio']:.2f} ×"] if pruned else []
        table.add_row(*(Text(str(cell)) for cell in cells))
    _put(console, table)
    for row in result["results"]:
        if row["refused"] or row.get("noise"):
            told = row["refused"] or f"this machine is too noisy to tell: {row['noise']}"
            console.print(Text(f"{row['backend']}, batch {row['batch']}: {told}"), soft_wrap=True)
    if result["path"]:
        _say(console, [("results", result["path"], "")])


def _export(result: Result, console: Console) -> None:
    if "text" in result:
        console.out(result["text"].rstrip("\n"), highlight=False)
    else:
        _say(console, network_file(result) if "max_error" in result else [("results", result["path"], "")])


def _report(result: Result, console: Console) -> None:
    figures = [("figures", result["figures"], "")] if result["figures"] else []
    _say(console, [("page", result["page"], ""), *figures])


def _inspect(result: Result, console: Console) -> None:
    size = f"{count(result['macs'])} MACs at image size {result['image_size']}, {count(result['params'])} parameters"
    console.print(Text.assemble((str(result["model"]), "bold"), f": {size}"))
    numbers = [(title, "number") for title in (_counted(result.get("unit")), "MACs", "params")]
    table = _table(("group", "name"), *numbers, ("tied to", "list"), ("read by", "list"))
    for group in result["groups"]:
        shares = (percent(group["macs_share"]), percent(group["params_share"]))
        kinds = ", ".join(dict.fromkeys(tie.partition(" in ")[0] for tie in group["ties"]))
        ties = _compact(group["producers"][1:]) + (f" ({kinds})" if kinds else "")
        cells = (group["group"], group["channels"], *shares, ties.strip(), _compact(group["consumers"]))
        table.add_row(*(Text(str(cell)) for cell in cells))
    _put(console, table)
    console.print(Text("MACs, params: what goes when this group alone is cut to its minimum\n", "dim"))
    if result["blocks"]:
        _blocks(result["blocks"], console)
    traps = [(group["group"], trap) for group in result["groups"] for trap in group["traps"]]
    _reasons("traps", traps, console)
    _reasons("never cut (--group declares a group by hand)", result["refused"].items(), console)
    least = ", ".join(f"{unit}={math.ceil(1000 * result[f'smallest_{unit}']) / 1000:g}" for unit in ("macs", "params"))
    _say(console, [("smallest", least, "the least that a budget can ask for")])


def _blocks(blocks: list[dict[str, Any]], console: Console) -> None:
    """Residual blocks that may be taken out, and what goes with each."""
    table = _table(("block", "name"), ("MACs", "number"), ("params", "number"), ("what remains", "name"), ("", "list"))
    for block in blocks:
        shares = (percent(block["macs_share"]), percent(block["params_share"]))
        cells = (block["block"], *shares, block["remains"] or "its input", " ".join(block["groups"]))
        table.add_row(*(Text(cell) for cell in cells))
    _put(console, table)
    console.print(Text("blocks: what goes when this one alone is taken out (--decide channels,blocks)\n", "dim"))


def _methods(result: Result, console: Console) -> None:
    for kind in dict.fromkeys(row["kind"] for row in result["methods"]):
        rows = [row for row in result["methods"] if row["kind"] == kind]
        console.print(Text(f"{kind}: {len(rows)} methods", "bold"))
        for row in rows:
            settings = f":{row['settings']}" if row["settings"] else ""
            console.print(Text.assemble("  ", (row["name"], "bold cyan"), (settings, "dim")))
            needs, claim = f"needs {row['needs']}" * bool(row["needs"]), f"claimed: {row['claim']}" * bool(row["claim"])
            facts = [row["summary"], needs, row["paper"], claim, row["example"]]
            for fact in filter(None, facts):
                console.print(Padding(Text(fact, "dim" if fact == row["example"] else ""), (0, 0, 0, 6)))
        console.print()


def _compact(layers: list[str]) -> str:
    return " ".join([*layers[:1], *([f"+{len(layers) - 1}"] if len(layers) > 1 else [])])


def _reasons(title: str, reasons: Iterable[tuple[str, str]], console: Console) -> None:
    """Names under what they have in common."""
    pairs = list(reasons)
    if not pairs:
        return
    console.print(Text(title, "dim"))
    for reason in dict.fromkeys(why for _, why in pairs):
        names = ", ".join(name for name, why in pairs if why == reason)
        console.print(Padding(Text(f"{names}: {reason}"), (0, 0, 0, 2)))
    console.print()


SHOWN: dict[str, Callable[[Result, Console], None]] = {
    "search": _search,
    "compare": _compare,
    "replay": _replay,
    "prune": _pruning,
    "train": _train,
    "finetune": _finetune,
    "eval": _eval,
    "export": _export,
    "report": _report,
    "bench": _bench,
    "inspect": _inspect,
    "methods": _methods,
}
