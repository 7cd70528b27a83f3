"""How well cheap scores of a plan rank the accuracy it ends with after fine-tuning.

    python scripts/benchmarks/proxies.py --model vgg16 --model-args width=0.25 --checkpoint FILE --data folder:PATH \\
        --budget 0.15 --out docs/benchmarks/proxies-vgg16-0.15.csv

Thirty plans of equal MACs are scored by every proxy and fine-tuned alike; Spearman's rank correlation with the
fine-tuned accuracy on the test images is printed. All proxies are judged on the same images, those of the search split
and as many training images as `rlprune.evaluation.finetuned` holds back, which nothing here learns from. A plan that
has been measured is not measured again; the same command in several processes, best with one thread each, fills one
file. With all of them measured the figures go to docs/benchmarks/proxies.json.
"""

import copy
import time
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from common import grow, keep_cell, plan_arguments, unclaimed
from scipy.stats import spearmanr
from torch import nn

from rlprune.agents.algorithms.ppo import PPO
from rlprune.agents.search.archive import Target
from rlprune.agents.search.engine import search
from rlprune.agents.search.setup import make_evaluator, prepare
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.data.holdout import HELD
from rlprune.data.images import ImageSet
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.sliced import recalibrate
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.methods.allocators.global_l1 import one_threshold
from rlprune.methods.allocators.uniform import uniform
from rlprune.plans.counts import top_mask
from rlprune.tasks.classification import calibrated
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import evaluate, train
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload


class Tuned(NamedTuple):
    """A fine-tuning on one in so many training images, annealed to zero."""

    part: int = 1
    epochs: int = 1
    distilled: bool = False


TUNED = {
    "1/8 epoch": Tuned(8),
    "1/4 epoch": Tuned(4),
    "1/4 epoch, distilled": Tuned(4, distilled=True),
    "1 epoch": Tuned(),
}
EPOCHS = 6
FULL = Tuned(epochs=EPOCHS)
PROXIES = ("as cut", "recalibrated", "merged", *TUNED)


class Images(NamedTuple):
    """What plans learn from, and what they are judged on beside the search split."""

    train: ImageSet
    held: ImageSet


def main() -> None:
    """Measure the plans that are left, then tell the correlations."""
    parser = plan_arguments(__doc__)
    parser.add_argument("--images", type=int, help="training images of every fine-tuning; all by default")
    given = parser.parse_args()
    workload = open_workload(vars(given), Progress())
    held, rest = parted(workload.data.train, HELD)
    images = Images(parted(rest, given.images or len(rest))[0], held)
    projector = BudgetProjector(workload.cost, parse_budget(given.budget))
    evaluator = make_evaluator(workload, "l1", 0)
    chosen = plans(workload, projector, evaluator)
    for name in unclaimed(given.out, chosen):
        if not given.out.is_file() or name not in pd.read_csv(given.out)["plan"].tolist():
            row = {"plan": name, **measured(workload, images, chosen[name], evaluator)}
            grow(given.out, row)
            print(name, f"{100 * row['test accuracy']:.2f} %", flush=True)
    table = pd.read_csv(given.out)
    found = correlations(table)
    print(found.to_string(float_format="%.2f"))
    if len(table) == len(chosen):
        facts = {"plans": len(table), "epochs": EPOCHS, "spearman": found["Spearman"].to_dict()}
        accuracies = 100 * table["test accuracy"]
        facts |= {"low": accuracies.min(), "high": accuracies.max()}
        keep_cell("proxies", given, len(images.train), facts)


def plans(workload: Workload, projector: BudgetProjector, evaluator: Evaluator) -> dict[str, np.ndarray]:
    """Plans of equal MACs: the rules', a search's, heavy at the front or at the back, random around two rules."""
    rng = np.random.default_rng(0)
    prepared = prepare(workload, [projector], evaluator, np.zeros(2), False)
    middle, rule = uniform(projector), prepared.starts[0][0].astype(float)
    target = Target(
        prepared.specs, lambda plans: [evaluator(counts).loss for counts in plans], prepared.sensitivity.predict
    )
    found = {
        "uniform": middle,
        "sensitivity": prepared.starts[0][0],
        "global-l1": one_threshold(workload.graph, evaluator.scores, projector),
        "searched": search([target], 260, PPO()).counts[0],
    }
    depth = np.linspace(1, -1, len(middle))
    for tilt in (-0.8, -0.4, 0.4, 0.8):
        found[f"front {tilt:+}"] = landed(projector, middle, tilt * depth)
    for number in range(12):
        found[f"random {number}"] = landed(projector, middle, rng.normal(0, 0.5, len(middle)))
    for number in range(10):
        found[f"near the rule {number}"] = landed(projector, rule, rng.normal(0, 0.35, len(middle)))
    names = list(found)
    # In random order, so that a part of the plans tells about all of them.
    return {names[place]: found[names[place]] for place in rng.permutation(len(names))}


def landed(projector: BudgetProjector, base: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """(groups,) the plan that multiplies a base plan by exp(logs)."""
    return projector.project(np.minimum(base * np.exp(logs), projector.sizes)[None])[0]


def measured(workload: Workload, images: Images, counts: np.ndarray, evaluator: Evaluator) -> dict[str, Any]:
    """Every proxy of one plan, and its fine-tuned accuracy on the test images."""
    mask = top_mask(workload.graph, counts, evaluator.scores)
    row: dict[str, Any] = {"counts": " ".join(str(int(count)) for count in counts)}
    row["macs_ratio"], row["params_ratio"] = workload.cost.ratios(counts)
    smaller = prune(workload.module, workload.graph, mask)
    score(row, "as cut", smaller, workload, images)
    recalibrate(smaller, workload.calibration()[0])
    score(row, "recalibrated", smaller, workload, images)
    merged = prune(compensated(workload, mask), workload.graph, mask)
    recalibrate(merged, workload.calibration()[0])
    score(row, "merged", merged, workload, images)
    for name, tuned in TUNED.items():
        score(row, name, fine_tuned(workload, images, mask, tuned, row, name), workload, images)
    full = fine_tuned(workload, images, mask, FULL, row, "full")
    score(row, "full", full, workload, images)
    row["test accuracy"] = evaluate(full, workload.data.test, device=workload.device)[1]
    return row


def compensated(workload: Workload, mask: np.ndarray) -> nn.Module:
    """A copy of the dense network whose kept channels stand in for the removed ones; no images are needed.

    Neuron merging (Kim et al., 2020, arXiv 2010.13160): what reads a removed channel reads the kept one with the most
    similar weights instead, scaled by their norms. Batch-norm shifts are left to the recalibration.
    """
    module, graph = copy.deepcopy(workload.module), workload.graph
    state = dict(module.named_parameters())
    for group in graph.groups:
        weight, dim = graph.weights[graph.first_layer(group)]
        filters = state[weight.name].detach().movedim(dim, 0).reshape(group.channels, -1).double()
        norms = filters.norm(dim=1)
        likeness = (filters / norms[:, None]) @ (filters / norms[:, None]).T
        kept = np.flatnonzero(mask[group.start : group.start + group.channels])
        for gone in np.setdiff1d(np.arange(group.channels), kept):
            stand_in = int(kept[likeness[gone, kept].argmax()])
            factor = float(likeness[gone, stand_in] * norms[gone] / norms[stand_in])
            redirect(graph, state, group.start + int(gone), group.start + stand_in, factor)
    return module


def redirect(graph: Graph, state: dict[str, nn.Parameter], gone: int, stand_in: int, factor: float) -> None:
    """Add the weights that read one channel to those that read another."""
    for tensor in graph.tensors:
        for dim, axis in enumerate(tensor.axes):
            if axis is not None and tensor.positions and graph.axes[axis].side == "in":
                slots, weight = graph.axes[axis].slots, state[tensor.name].detach().movedim(dim, 0)
                weight[slots == stand_in] += factor * weight[slots == gone]


def fine_tuned(
    workload: Workload, images: Images, mask: np.ndarray, tuned: Tuned, row: dict[str, Any], name: str
) -> nn.Module:
    """A pruned network after a fine-tuning; the seconds go into the row."""
    smaller, start = prune(workload.module, workload.graph, mask), time.perf_counter()
    seen = parted(images.train, len(images.train) // tuned.part)[0]
    teacher = workload.module if tuned.distilled else None
    train(
        smaller,
        seen,
        TrainingConfig(epochs=tuned.epochs, recovery=True, batch_size=128),
        device=workload.device,
        teacher=teacher,
    )
    row[f"{name} seconds"] = time.perf_counter() - start
    return smaller


def parted(images: ImageSet, number: int) -> tuple[ImageSet, ImageSet]:
    """So many of the images, the same ones every time, and the others."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[:number]), images.subset(order[number:])


def score(row: dict[str, Any], name: str, module: nn.Module, workload: Workload, images: Images) -> None:
    """Loss (at the best temperature) and accuracy on what is judged."""
    judged = [pair for kept in (workload.data.search, images.held) for pair in kept.batches(500)]
    with torch.inference_mode():
        logits = torch.cat([module(pixels) for pixels, _ in judged])
    result = calibrated(logits, torch.cat([labels for _, labels in judged]))
    row[f"{name} loss"], row[f"{name} accuracy"] = result.loss, result.accuracy


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of every proxy with the fine-tuned test accuracy; losses count with their sign turned."""
    rows = {}
    for column in table.columns:
        told = table[column].nunique() > 1
        if told and column.endswith((" loss", " accuracy")) and column != "test accuracy":
            sign = -1 if column.endswith("loss") else 1
            rows[column] = spearmanr(sign * table[column], table["test accuracy"]).statistic
    rows["parameters"] = spearmanr(table["params_ratio"], table["test accuracy"]).statistic
    return pd.DataFrame({"Spearman": rows})


def proxies_table(figures: dict[str, Any]) -> str:
    """Rank correlations of every proxy, of its loss and of its accuracy, in every cell."""
    (plans,), (epochs,) = ({cell[name] for cell in figures["cells"]} for name in ("plans", "epochs"))
    title = (
        f"**What cheap scores tell of the test accuracy after {epochs} epochs of fine-tuning: Spearman's correlation "
        f"over {plans} plans of equal MACs, by loss / by accuracy** (`python scripts/benchmarks/proxies.py`)"
    )
    heads = " | ".join(PROXIES)
    lines = [
        f"| network | training images | MACs | ends at | {heads} | parameters |",
        "|---|---|---|---|" + "---|" * (len(PROXIES) + 1),
    ]
    for cell in figures["cells"]:
        known = cell["spearman"]
        pairs = [
            " / ".join(f"{known[key]:.2f}" for key in (f"{name} loss", f"{name} accuracy") if key in known)
            for name in PROXIES
        ]
        place = f"{cell['network']} | {cell['images']:,} | {100 * cell['budget']:g} %"
        ends = f"{cell['low']:.1f} to {cell['high']:.1f} %"
        lines.append(f"| {place} | {ends} | {' | '.join(pairs)} | {known['parameters']:.2f} |")
    legend = (
        "On the same 4,500 images, after cutting, after recalibrating the batch norms, after neuron merging and "
        "recalibration, and after brief fine-tunings, each annealed to zero."
    )
    return "\n".join([title, "", *lines, "", legend])


if __name__ == "__main__":
    main()
