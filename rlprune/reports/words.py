"""Results in words, the same on the terminal and on the page."""

from pathlib import Path
from typing import Any

from rlprune.utils.text import count, duration, milliseconds, percent, size

Result = dict[str, Any]
Fact = tuple[str, str, str]
"""What it is, the value, and what else to know of it (may be empty)."""
OBSERVATIONS = {
    "depth": "depth in the network",
    "channels": "channels, of the widest group's",
    "log_channels": "channels, logarithm",
    "inputs": "input channels",
    "kernel": "area of the kernel",
    "positions": "size of the feature map",
    "producers": "layers that make the channels",
    "consumers": "layers that read the channels",
    "macs_share": "share of the MACs",
    "params_share": "share of the parameters",
    "base_ratio": "ratio of the sensitivity rule",
    "wished": "that ratio, scaled to what is left",
    "rescale": "how much it was scaled",
    "last_action": "the action before",
    "used_macs": "MACs used so far",
    "used_params": "parameters used so far",
    "used_latency": "latency used so far",
    "left_macs": "MACs left",
    "left_params": "parameters left",
    "left_latency": "latency left",
    "budget_macs": "budget of MACs",
    "budget_params": "budget of parameters",
    "budget_latency": "budget of latency",
    "kept": "ratio that is kept",
    "asks_block": "whether a block is asked for",
    "block_rise": "rise of the loss without the block",
    "block_saves_macs": "MACs that go with the block",
    "block_saves_params": "parameters that go with the block",
    "block_saves_latency": "latency that goes with the block",
}
SIDES = ("before", "after")
SPECTRA = {"static": "channel scores", "runtime": "channel activations", "variation": "variation of activations"}


def observation_words(name: str) -> str:
    """What the policy sees, in words; names of another version stay as they are."""
    kind, _, place = name.rpartition("_q")
    if kind in SPECTRA:
        return f"{SPECTRA[kind]}, {place} % quantile"
    if name.startswith("rise_at_"):
        return f"rise of the loss at {percent(float(name.removeprefix('rise_at_')), 0)} kept"
    if name.startswith("asks_criterion_"):
        return f"whether criterion {name.removeprefix('asks_criterion_')} is asked for"
    side, _, rest = name.partition("_")
    if side in SIDES:
        return f"{observation_words(rest)}, of the groups {side}"
    return OBSERVATIONS.get(name, name)


def spread(record: Result, name: str, scale: float, digits: int) -> str:
    """A mean with its standard deviation, where there is one: '41.3 ± 0.4'."""
    mean, deviation = record[name], record[f"{name}_sd"]
    return f"{scale * mean:.{digits}f}" + ("" if deviation is None else f" ± {scale * deviation:.{digits}f}")


def heading(result: Result) -> str:
    """What was asked for: 'vgg16 on cifar10: keep ≤ 30 % of the MACs (remove ≥ 70 %)'."""
    data = f" on {result['data']}" if result.get("data") else ""
    return f"{result['model']}{data}: {result['budget_words']}"


def effort(result: Result) -> str:
    """What it took: '300 evaluations, 24 fine-tunings of plans, 4 min 12 s in all'."""
    evaluations = f"{result['evaluations']} evaluations, " if "evaluations" in result else ""
    tunings = f"{result['tunings']} fine-tunings of plans, " if result.get("tunings") else ""
    return f"{evaluations}{tunings}{duration(result['seconds'])} in all"


def closing(result: Result) -> list[Fact]:
    """The lines that end a pruning command: accuracy if it was measured, cost, and where the results lie."""
    if "networks" in result:
        replay = ("next", f"rlprune replay {result['run']} --model M", "walks one of them, or another network")
        return [replay, ("results", result["run"], "policy: policy/")]
    if "plans" in result:
        front = ("front", f"{result['front_plans']} plans", "front.csv; none of them is beaten by a cheaper one")
        replay = ("next", f"rlprune replay {result['run']} --budget B", "prunes to any budget in between")
        return [front, replay, ("results", result["run"], "")]
    accuracy = _accuracy(*(result.get(f"{when}_accuracy") for when in ("dense", "oneshot", "finetuned")))
    kept = result["macs_ratio"]
    cost = (
        "MACs",
        f"{count(result['dense_macs'])} → {count(result['pruned_macs'])}",
        f"kept {percent(kept)}, removed {percent(1 - kept)}; "
        f"params {count(result['dense_params'])} → {count(result['pruned_params'])}",
    )
    return [*_choice(result), *accuracy, cost, *_footprint(result), _where(result)]


def _choice(result: Result) -> list[Fact]:
    """Which plan was taken where several were tuned: 'ppo', 'loss after 12800 images: ppo 1.050, sensitivity 1.067'."""
    plans = result.get("choice")
    if not plans:
        return []
    best, *others = (f"{row['plan']} {row['loss']:.3f}" for row in plans)
    return [("plan", plans[0]["plan"], f"loss after {result['tuned_on']}: {', '.join([best, *others])}")]


def _footprint(result: Result) -> list[Fact]:
    """The file and the latency before and after; older results know neither."""
    facts = []
    if "pruned_bytes" in result:
        facts.append(("file", f"{size(result['dense_bytes'])} → {size(result['pruned_bytes'])}", "float32 weights"))
    if latency := result.get("latency"):
        before, after = latency["dense_ms"], latency["pruned_ms"]
        noisy = "; this machine is too noisy to tell" if latency["noise"] else ""
        threads = f", {latency['threads']} thread{'s' * (latency['threads'] > 1)}" if latency["device"] == "cpu" else ""
        note = f"{before / after:.2f} × as fast; {latency['backend']}, batch {latency['batch']}{threads}{noisy}"
        facts.append(("latency", f"{milliseconds(before)} → {milliseconds(after)}", note))
        facts += [("warning", warning, "") for warning in latency.get("warnings", [])]
    return facts


def network_file(result: Result) -> list[Fact]:
    """An exported network: how exact it is, its inputs and outputs, and where it lies."""
    shapes = [f"{name} {shape}" for part in ("inputs", "outputs") for name, shape in result[part].items()]
    batches = " and ".join(map(str, result["batches"]))
    facts = [
        ("shapes", " → ".join(shapes).replace("'", ""), f"opset {result['opset']}"),
        ("error", f"{result['max_error']:.1e}", f"largest difference from torch with {batches} images"),
        ("results", result["path"], size(result["bytes"])),
    ]
    if small := result.get("int8"):
        accuracy = f"{percent(result['float_accuracy'], 2)} → {percent(result['int8_accuracy'], 2)}"
        facts = [("accuracy", accuracy, "test; float and 8-bit integers in ONNX Runtime"), *facts]
        facts.append(("int8", small["path"], size(small["bytes"])))
    return facts


def _accuracy(dense: float | None, oneshot: float | None, finetuned: float | None) -> list[Fact]:
    after, note = finetuned, "test" if oneshot is None else f"test; one-shot before fine-tuning {percent(oneshot, 2)}"
    if after is None:
        after, note = oneshot, "test; one-shot, not fine-tuned"
    if after is None:
        return []
    before = "" if dense is None else f"{percent(dense, 2)} → "
    return [("accuracy", before + percent(after, 2), note)]


def _where(result: Result) -> Fact:
    folder, plan = str(result.get("run") or result.get("pruned")), result.get("plan")
    if not plan:
        return ("results", folder, "")
    inside = Path(plan).is_relative_to(folder)
    return ("results", folder, f"plan: {Path(plan).relative_to(folder) if inside else plan}")
