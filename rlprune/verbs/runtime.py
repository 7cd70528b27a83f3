"""`rlprune search --mode runtime`: every image gets the channels it needs."""

import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.agents.alternation import STAGED, Alternation
from rlprune.budget import Budget, parse_budget
from rlprune.config import Search, as_dict
from rlprune.criteria import score_channels
from rlprune.deploy import gate_params, save_gated, shrink, stored_mask
from rlprune.errors import UserError
from rlprune.files import read_content, room_for, write_json
from rlprune.finish import described, plan_of, save_card
from rlprune.gates import GatedNetwork, make_gates, wires
from rlprune.keeps import macs_ratios, make_layout
from rlprune.lock import locked
from rlprune.modules import named_tensors
from rlprune.plan import make_plan
from rlprune.problem import Problem, inputs_of, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.run import RunFolder, default_folder, finished, read_result, write_result
from rlprune.skipping import SkippingNetwork
from rlprune.timing import quick_latency
from rlprune.training import evaluate

FORMAT = "rlprune-method"
VERSION = 1


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


def search_runtime(given: Search, progress: Progress) -> dict[str, Any]:
    """Train gates and agents, land on the budget, remove what no image needs, and measure.

    Args:
        given: settings with the mode ``runtime``.
        progress: told how far it is.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start = time.perf_counter()
    budget = _budget(given)
    folder = given.out or default_folder(given)
    RunFolder.check(folder, given)
    if finished(folder):
        progress.note(f"{folder} is finished already; this is its result")
        return read_result(folder)
    problem = open_problem(as_dict(given), progress)
    _require_reachable(problem, given, budget)
    if given.checkpoint is None:
        train_dense(problem, given, given.train_epochs, progress)
    run = RunFolder(folder, given)
    with locked(folder), room_for(folder):
        run.same_inputs(inputs_of(problem))
        methods = methods_of(given)
        try:
            rows = [_one(problem, given, each, budget, _place(folder, each, methods), progress) for each in methods]
        except KeyboardInterrupt:
            progress.close(finished=False)
            raise KeyboardInterrupt(f"the stages that have ended are in {folder}; the same command continues") from None
        result = {"run": str(folder), "mode": "runtime", **described([budget], problem, time.perf_counter() - start)}
        result |= {"dense_macs": int(problem.cost.dense[0]), "dense_params": int(problem.cost.dense[1])}
        result |= {"methods": rows}
        write_result(folder, result)
    return result


def _budget(given: Search) -> Budget:
    """The one bound that a mean over images can have."""
    if given.budget is None or (isinstance(given.budget, str) and ":" in given.budget):
        raise UserError("--mode runtime wants one --budget; what it makes can be told another at any time (set_budget)")
    budget = parse_budget(given.budget)
    if list(budget.limits) != ["macs"] or budget.timed:
        raise UserError(f"--budget {budget}: --mode runtime bounds the MACs alone, the mean over images; try macs=0.5")
    return budget


def _require_reachable(problem: Problem, given: Search, budget: Budget) -> None:
    """Whether the layers that can be skipped are enough for the budget."""
    gated = _gated(problem, given, Method("", 1.0, predicts=False, acts=False))
    least = make_layout(gated, problem.cost).macs[0]
    gated.bare()
    if budget.limits["macs"] < least:
        count = f"{len(wires(problem.module, problem.graph))} of {len(problem.graph.groups)}"
        raise UserError(
            f"--budget {budget} cannot be met: only {count} groups can be chosen image by image, and without them "
            f"{100 * least:.1f} % of the MACs are left; ask for more"
        )


def _gated(problem: Problem, given: Search, method: Method) -> GatedNetwork:
    scores = score_channels(given.criterion, problem.module, problem.graph, problem.calibration(), given.seed)
    network = copy.deepcopy(problem.module)
    torch.manual_seed(given.seed)
    gates = make_gates(network, problem.graph, scores, method.predicts)
    return GatedNetwork(network, problem.graph, gates, method.mix).to(problem.device)


def _place(folder: Path, method: Method, methods: list[Method]) -> Path:
    """The run folder itself, or one in it for each of several methods."""
    return folder if len(methods) == 1 else folder / method.name.replace(" ", "-")


def _one(
    problem: Problem, given: Search, method: Method, budget: Budget, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Everything for one method; what has ended before is read."""
    kept = folder / "method.json"
    if kept.is_file():
        return read_content(kept, FORMAT, VERSION)
    start = time.perf_counter()
    progress.note(f"{method.name}: in {folder}")
    gated = _gated(problem, given, method)
    layout = make_layout(gated, problem.cost)
    course = Alternation(problem, gated, layout, budget.limits["macs"], method.acts, given, folder, progress)
    epochs = problem.data.finetune_epochs if given.finetune_epochs is None else given.finetune_epochs
    course.run(epochs)
    return _finish(problem, given, method, course, folder, start, progress)


def _finish(
    problem: Problem,
    given: Search,
    method: Method,
    course: Alternation,
    folder: Path,
    start: float,
    progress: Progress,
) -> dict[str, Any]:
    """Remove, save and measure; the test images are looked at here and nowhere else."""
    progress.stage("measuring")
    gated, runtime = course.gated, course.runtime
    mask = stored_mask(gated, runtime)
    provenance = plan_of(problem, problem.graph.sizes, mask.astype(float), given).provenance
    plan = make_plan(problem.graph, mask, problem.network, provenance)
    gated.runtime = runtime
    _, dense = evaluate(problem.module, problem.data.test, device=problem.device)
    _, accuracy = evaluate(gated, problem.data.test, device=problem.device)
    batches = problem.data.test.batches(250, device=problem.device)
    ratios = np.concatenate([macs_ratios(gated, runtime, problem.cost, images) for images, _ in batches])
    module = shrink(gated, runtime, problem.data.image_size)
    pruned = folder / "pruned"
    plan.save(folder / "plan.json")
    plan.save(pruned / "plan.json")
    save_gated(module, pruned)
    stored = problem.cost(plan.counts())[1]
    facts: dict[str, Any] = {
        **{key: value for key, value in asdict(method).items() if key != "name"},
        "dense_accuracy": dense,
        "test_accuracy": accuracy,
        "macs_ratio": float(ratios.mean()),
        "macs_p5": float(np.quantile(ratios, 0.05)),
        "macs_p95": float(np.quantile(ratios, 0.95)),
        "gate_macs_ratio": gate_macs(module) / problem.cost.dense[0],
        "stored_ratio": float(stored / problem.cost.dense[1]),
        "stored_with_gates": float((stored + gate_params(module)) / problem.cost.dense[1]),
        "stored_bytes": (pruned / "model.safetensors").stat().st_size,
        "dense_bytes": sum(tensor.nbytes for tensor in named_tensors(problem.module).values()),
        "latency": quick_latency(problem.module, module, problem.data.image_size),
        "budgets": list(module.budgets),
        "seconds": round(time.perf_counter() - start, 1),
    }
    save_card(plan, {"dense_accuracy": dense, "finetuned_accuracy": accuracy}, pruned)
    row = {"method": method.name, "folder": str(folder), **facts}
    write_json(folder / "method.json", {"format": FORMAT, "version": VERSION, **row})
    (folder / STAGED).unlink(missing_ok=True)
    return row


def gate_macs(module: SkippingNetwork) -> float:
    """Multiply-accumulates of predictors and policy for an image."""
    policy = module.runtime.policy
    parts: list[nn.Module] = [*module.gated.gates, *([policy] if policy is not None else [])]
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]
    return float(sum(layer.weight.numel() for layer in layers))
