"""The model card of a pruned folder: what it is, how small and how good, and where it comes from."""

import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click
import yaml

from rlprune._version import __version__
from rlprune.plans.plan import PruningPlan
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.utils.environment import environment
from rlprune.utils.shapes import described, shape_of
from rlprune.utils.text import count, percent

ACCURACIES = {"dense": "dense_accuracy", "pruned": "oneshot_accuracy", "fine-tuned": "finetuned_accuracy"}
LOADING = """```python
import rlprune

network = rlprune.from_pretrained(FOLDER)  # an ordinary nn.Module in eval mode
```
"""
VERSIONS = ("rlprune", "torch", "torchvision", "python")


def model_card(plan: PruningPlan, facts: Mapping[str, Any], date: str) -> str:
    """A README with the front matter that model hubs read.

    Args:
        plan: of the network.
        facts: what is known of its `ACCURACIES` on the test images and of its costs, as a result has them.
        date: on which its run was begun.
    """
    name, data = _name(plan), str(plan.provenance.get("data_settings", {}).get("data", ""))
    parts = [
        f"---\n{yaml.safe_dump(_front(name, data, facts), sort_keys=False, allow_unicode=True)}---\n",
        f"# {name}\n",
        f"{plan.network.get('model', 'A network')} with fewer {'channels' if plan.kernels is None else 'kernels'}"
        + (f", for the {plan.network['classes']} classes of `{data}`.\n" if data else ".\n"),
        _table(facts),
        "## How to load it\n",
        LOADING,
        f"It takes images of {_size(plan)}, normalised as for training.\n",
        "## Where it comes from\n",
        *(f"- {what}: {value}" for what, value in _origin(plan, date).items()),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _size(plan: PruningPlan) -> str:
    return described(shape_of(plan.network)) if "image_size" in plan.network else "? pixels a side"


def _name(plan: PruningPlan) -> str:
    model = str(plan.network.get("model", "network")).rpartition("/")[2].replace(".py:", "-")
    return f"{model}-pruned"


def _front(name: str, data: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": "rlprune",
        "pipeline_tag": CLASSIFICATION.pipeline_tag,
        "tags": ["rlprune", "pruning", "model-compression", "pytorch"],
    }
    reached = next((facts[key] for key in reversed(ACCURACIES.values()) if facts.get(key) is not None), None)
    if reached is not None and data:
        kind = data.partition(":")[0]
        metric = {"type": CLASSIFICATION.metric, "name": "test accuracy", "value": round(float(reached), 6)}
        task = {"type": CLASSIFICATION.pipeline_tag}
        result = {"task": task, "dataset": {"name": data, "type": kind}, "metrics": [metric]}
        front |= {"metrics": [CLASSIFICATION.metric], "model-index": [{"name": name, "results": [result]}]}
    return front


def _table(facts: Mapping[str, Any]) -> str:
    """Before and after, as far as it is known."""
    lines = ["| | dense | this one | kept |", "|---|---|---|---|"]
    for what, key in (("MACs", "macs"), ("parameters", "params")):
        if f"pruned_{key}" in facts:
            before, after = facts[f"dense_{key}"], facts[f"pruned_{key}"]
            lines.append(f"| {what} | {count(before)} | {count(after)} | {percent(after / before)} |")
    dense, oneshot, tuned = (facts.get(key) for key in ACCURACIES.values())
    if (after := oneshot if tuned is None else tuned) is not None:
        before = "" if dense is None else percent(dense, 2)
        lines.append(f"| test accuracy | {before} | {percent(after, 2)} | |")
    if tuned is not None and oneshot is not None:
        lines.append(f"| test accuracy before fine-tuning | | {percent(oneshot, 2)} | |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _origin(plan: PruningPlan, date: str) -> dict[str, str]:
    known = plan.provenance
    settings = known.get("data_settings", {})
    args = ", ".join(f"{key}={value}" for key, value in plan.network.get("args", {}).items())
    # In a source tree the package itself is not installed.
    versions = environment() | {"rlprune": __version__}
    found = {
        "network": f"`{plan.network.get('model')}`" + (f" with {args}" if args else ""),
        "images": ", ".join(f"{key} `{value}`" for key, value in settings.items()),
        "hash of the dense weights": f"`{known['dense_weights']}`" if known.get("dense_weights") else "",
        "budget": "" if known.get("budget") in (None, "None") else f"`{known['budget']}`",
        "residual blocks taken out": ", ".join(f"`{name}`" for name in plan.blocks),
        "criterion": f"`{known['criterion']}`" if known.get("criterion") else "",
        "repaired by": f"`{known['repair']}`" if known.get("repair") else "",
        "unit that went": f"`{known['unit']}`" if known.get("unit") else "",
        "command": _command(),
        "versions": ", ".join(f"{key} {text}" for key, text in versions.items() if key in VERSIONS),
        "date": date,
    }
    return {what: value for what, value in found.items() if value}


def _command() -> str:
    """What was typed; nothing where Python called."""
    if click.get_current_context(silent=True) is None:
        return ""
    return f"`{shlex.join(['rlprune', *sys.argv[1:]])}`"
