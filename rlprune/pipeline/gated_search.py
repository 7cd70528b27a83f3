"""Gated search: every image gets the channels it needs."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprune.agents.gating.agents import require_recurrent
from rlprune.agents.gating.alternation import STAGED, Alternation
from rlprune.config.commands import RECURRENT, Search
from rlprune.config.resolve import as_dict, to_yaml
from rlprune.cost.budget import Budget, parse_budget
from rlprune.errors import UserError
from rlprune.gating.agreement import sound_wires
from rlprune.gating.gate import Wire, make_gates, possible_wires
from rlprune.gating.layout import make_layout
from rlprune.gating.network import GatedNetwork
from rlprune.methods.criteria.base_choice import score_by
from rlprune.pipeline.gated_results import measure
from rlprune.pipeline.results import continuable, described, known_result
from rlprune.reports.page import write_run_page
from rlprune.runs.folder import RunFolder, as_begun, default_folder, write_result
from rlprune.utils.files import FileFormat, room_for, write_text
from rlprune.utils.lock import locked
from rlprune.utils.modules import copy_module
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import finetuning_epochs, train_dense
from rlprune.workloads.workload import Workload, inputs_of, open_workload

Wires = tuple[Wire, ...]
LISTED = 5
"""Layers of a sentence."""
METHOD = Path("state") / "method.json"
METHOD_FORMAT = FileFormat("rlprune-method")


@dataclass(frozen=True)
class Method:
    """One way to choose channels.

    Attributes:
        name: for people.
        mix: 0, all images alike, to 1, everything stays in store.
        predicts: gates look at the image to say which channels.
        acts: an agent looks at the image to say how many.
    """

    name: str
    mix: float
    predicts: bool
    acts: bool

    @property
    def control(self) -> str | None:
        """What --controls calls it."""
        return self.name if self.name in CONTROLS else None


CONTROLS = {
    # Gao et al., 2018, arXiv 1810.05331: a fixed ratio of every layer, the channels chosen for the image.
    "fbs": Method("fbs", 1.0, predicts=True, acts=False),
    # Lin et al., 2017 (NIPS): an agent says how many for the image, always the same ones first.
    "rnp": Method("rnp", 1.0, predicts=False, acts=True),
}


def methods_of(given: Search) -> list[Method]:
    """The two agents at every mix, then the controls."""
    agents = [Method(f"mix {mix:g}", mix, predicts=mix > 0, acts=mix > 0) for mix in given.mixes]
    return agents + [CONTROLS[name] for name in given.compared]


def run_gated_search(given: Search, progress: Progress) -> dict[str, Any]:
    """Train gates and agents, project onto the budget, remove what no image needs, and measure.

    Args:
        given: settings with the mode ``runtime``.
        progress: told how far it is.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start = time.perf_counter()
    budget = _budget(given)
    if given.agent == RECURRENT:
        require_recurrent()
    folder = given.out or default_folder(given)
    given = as_begun(folder, given, progress.note)
    if (known := known_result(folder, given, progress)) is not None:
        return known
    workload = open_workload(as_dict(given), progress)
    # Before any work starts, and again for the weights that it leads to.
    _places(workload, budget, Progress())
    train_dense(workload, given, progress)
    run = RunFolder(folder, given)
    with locked(folder), room_for(folder):
        run.same_inputs(inputs_of(workload))
        methods = methods_of(given)
        with continuable(f"the stages that have ended are in {folder}", progress):
            wires = _places(workload, budget, progress)
            rows = [
                _one(workload, given, each, budget, wires, _place(folder, each, methods), progress) for each in methods
            ]
        result = {"run": str(folder), "mode": "runtime", **described([budget], workload, time.perf_counter() - start)}
        result |= {"dense_macs": int(workload.cost.dense[0]), "dense_params": int(workload.cost.dense[1])}
        if len(rows) == 1:
            result = _as_run(rows[0], result)
        else:
            for row in rows:
                write_result(Path(row["folder"]), _as_run(row, result))
        result |= {"methods": rows}
        write_result(folder, result)
        write_run_page(folder)
    return result


def _budget(given: Search) -> Budget:
    """The one bound that a mean over images can have."""
    if given.budget is None or (isinstance(given.budget, str) and ":" in given.budget):
        raise UserError("--mode runtime wants one --budget; what it makes can be told another at any time (set_budget)")
    budget = parse_budget(given.budget)
    if list(budget.limits) != ["macs"] or budget.timed:
        raise UserError(f"--budget {budget}: --mode runtime bounds the MACs alone, the mean over images; try macs=0.5")
    return budget


def _places(workload: Workload, budget: Budget, progress: Progress) -> Wires:
    """Where gates are sound.

    Raises:
        UserError: nowhere, or in too few layers for the budget.
    """
    possible = possible_wires(workload.module, workload.graph)
    # On the CPU, for others round more than the two ways may differ by.
    network, images = copy_module(workload.module).cpu(), workload.calibration()[0].cpu()
    wires, why_not = sound_wires(network, workload.graph, possible, images)
    for reason in dict.fromkeys(why_not.values()):
        layers = [layer for layer, why in why_not.items() if why == reason]
        more = f" and {len(layers) - LISTED} more" if len(layers) > LISTED else ""
        progress.note(f"no gate for {', '.join(layers[:LISTED])}{more}: {reason}")
    gates = make_gates(workload.module, wires, np.ones(sum(workload.graph.sizes)), False)
    gated = GatedNetwork(workload.module, workload.graph, wires, gates, 1.0)
    least = make_layout(gated, workload.cost).macs[0]
    gated.bare()
    if budget.limits["macs"] < least:
        count = f"{len(wires)} of {len(workload.graph.groups)}"
        raise UserError(
            f"--budget {budget} cannot be met: only {count} groups can be chosen image by image, and without them "
            f"{100 * least:.1f} % of the MACs are left; ask for more"
        )
    return wires


def _gated(workload: Workload, given: Search, wires: Wires, method: Method) -> GatedNetwork:
    scores = score_by(given.criterion, workload.module, workload.graph, workload.calibration(), given.seed)
    network = copy_module(workload.module)
    torch.manual_seed(given.seed)
    gates = make_gates(network, wires, scores, method.predicts)
    return GatedNetwork(network, workload.graph, wires, gates, method.mix).to(workload.device)


def _place(folder: Path, method: Method, methods: list[Method]) -> Path:
    """The run folder itself, or one in it for each of several methods."""
    return folder if len(methods) == 1 else folder / method.name.replace(" ", "-")


def _one(
    workload: Workload,
    given: Search,
    method: Method,
    budget: Budget,
    wires: Wires,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Everything for one method; what has ended before is read."""
    if (folder / METHOD).is_file():
        (folder / STAGED).unlink(missing_ok=True)
        return METHOD_FORMAT.read(folder / METHOD)
    start = time.perf_counter()
    progress.note(f"{method.name}: in {folder}")
    # A run of its own on a page, whichever run it is a part of.
    write_text(folder / "config.yaml", to_yaml(replace(given, mix=f"{method.mix:g}", controls=method.control)))
    gated = _gated(workload, given, wires, method)
    layout = make_layout(gated, workload.cost)
    alternation = Alternation(workload, gated, layout, budget.limits["macs"], method.acts, given, folder, progress)
    epochs = finetuning_epochs(given, workload.data, given.finetune_epochs)
    alternation.run(epochs)
    progress.stage("measuring")
    kind = {"mix": method.mix, "predicts": method.predicts, "acts": method.acts}
    measured = measure(workload, given, alternation, folder)
    row = {"method": method.name, "folder": str(folder), **kind, **measured}
    row["seconds"] = round(time.perf_counter() - start, 1)
    METHOD_FORMAT.write(folder / METHOD, row)
    (folder / STAGED).unlink(missing_ok=True)
    return row


def _as_run(row: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """A method's row in the words of a result of its own."""
    macs, params = about["dense_macs"], about["dense_params"]
    after = {"pruned_macs": int(row["macs_ratio"] * macs), "pruned_params": int(row["stored_with_gates"] * params)}
    told = {"params_ratio": row["stored_with_gates"], "finetuned_accuracy": row["test_accuracy"], **after}
    return {**about, **row, **told, "run": row["folder"]}
