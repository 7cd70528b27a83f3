"""How well cheap scores of a plan rank the accuracy it ends with after fine-tuning.

    python scripts/bench_proxies.py --model vgg16 --model-args width=0.25 --checkpoint FILE --data folder:PATH \\
        --budget 0.15 --out docs/benchmarks/proxies-vgg16-0.15.csv

Thirty plans of equal MACs are scored by every proxy and fine-tuned alike; Spearman's rank correlation with the
fine-tuned accuracy on the test images is printed. All proxies are judged on the same images, those of the search split
and as many training images as `rlprune.tuner` holds back, which nothing here learns from. A plan that has been measured
is not measured again; the same command in several processes, best with one thread each, fills one file. With all of
them measured the figures go to docs/benchmarks/proxies.json and the table into the README.
"""

import copy
import time
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from figures import grow, keep_cell, plan_arguments, unclaimed
from scipy.stats import spearmanr
from torch import nn

from rlprune.agents.level import Target
from rlprune.agents.preparation import make_evaluator, prepare
from rlprune.agents.search import search
from rlprune.allocators.global_l1 import one_threshold
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander, parse_budget
from rlprune.evaluator import Evaluator, measure, recalibrate
from rlprune.graph import Graph
from rlprune.images import ImageSet
from rlprune.plan import top_mask
from rlprune.problem import Problem, open_problem
from rlprune.progress import Progress
from rlprune.pruner import prune
from rlprune.training import evaluate, train
from rlprune.tuner import HELD


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
    problem = open_problem(vars(given), Progress())
    held, rest = parted(problem.data.train, HELD)
    images = Images(parted(rest, given.images or len(rest))[0], held)
    lander = Lander(problem.cost, parse_budget(given.budget))
    evaluator = make_evaluator(problem, "l1", 0)
    chosen = plans(problem, lander, evaluator)
    for name in unclaimed(given.out, chosen):
        if not given.out.is_file() or name not in pd.read_csv(given.out)["plan"].tolist():
            row = {"plan": name, **measured(problem, images, chosen[name], evaluator)}
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


def plans(problem: Problem, lander: Lander, evaluator: Evaluator) -> dict[str, np.ndarray]:
    """Plans of equal MACs: the rules', a search's, heavy at the front or at the back, random around two rules."""
    rng = np.random.default_rng(0)
    prepared = prepare(problem, [lander], evaluator, np.zeros(2), False)
    middle, rule = uniform(lander), prepared.starts[0][0].astype(float)
    target = Target(
        prepared.tasks, lambda plans: [evaluator(counts).loss for counts in plans], prepared.sensitivity.predict
    )
    found = {
        "uniform": middle,
        "sensitivity": prepared.starts[0][0],
        "global-l1": one_threshold(problem.graph, evaluator.scores, lander),
        "searched": search([target], 260).counts[0],
    }
    depth = np.linspace(1, -1, len(middle))
    for tilt in (-0.8, -0.4, 0.4, 0.8):
        found[f"front {tilt:+}"] = landed(lander, middle, tilt * depth)
    for number in range(12):
        found[f"random {number}"] = landed(lander, middle, rng.normal(0, 0.5, len(middle)))
    for number in range(10):
        found[f"near the rule {number}"] = landed(lander, rule, rng.normal(0, 0.35, len(middle)))
    names = list(found)
    # In random order, so that a part of the plans tells about all of them.
    return {names[place]: found[names[place]] for place in rng.permutation(len(names))}


def landed(lander: Lander, base: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """(groups,) the plan that multiplies a base plan by exp(logs)."""
    return lander.land(np.minimum(base * np.exp(logs), lander.sizes)[None])[0]


def measured(problem: Problem, images: Images, counts: np.ndarray, evaluator: Evaluator) -> dict[str, Any]:
    """Every proxy of one plan, and its fine-tuned accuracy on the test images."""
    mask = top_mask(problem.graph, counts, evaluator.scores)
    row: dict[str, Any] = {"counts": " ".join(str(int(count)) for count in counts)}
    row["macs_ratio"], row["params_ratio"] = problem.cost.ratios(counts)
    smaller = prune(problem.module, problem.graph, mask)
    score(row, "as cut", smaller, problem, images)
    recalibrate(smaller, problem.calibration()[0])
    score(row, "recalibrated", smaller, problem, images)
    merged = prune(compensated(problem, mask), problem.graph, mask)
    recalibrate(merged, problem.calibration()[0])
    score(row, "merged", merged, problem, images)
    for name, tuned in TUNED.items():
        score(row, name, fine_tuned(problem, images, mask, tuned, row, name), problem, images)
    full = fine_tuned(problem, images, mask, FULL, row, "full")
    score(row, "full", full, problem, images)
    row["test accuracy"] = evaluate(full, problem.data.test, device=problem.device)[1]
    return row


def compensated(problem: Problem, mask: np.ndarray) -> nn.Module:
    """A copy of the dense network whose kept channels stand in for the removed ones; no images are needed.

    Neuron merging (Kim et al., 2020, arXiv 2010.13160): what reads a removed channel reads the kept one with the most
    similar weights instead, scaled by their norms. Batch-norm shifts are left to the recalibration.
    """
    module, graph = copy.deepcopy(problem.module), problem.graph
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
    problem: Problem, images: Images, mask: np.ndarray, tuned: Tuned, row: dict[str, Any], name: str
) -> nn.Module:
    """A pruned network after a fine-tuning; the seconds go into the row."""
    smaller, start = prune(problem.module, problem.graph, mask), time.perf_counter()
    seen = parted(images.train, len(images.train) // tuned.part)[0]
    teacher = problem.module if tuned.distilled else None
    train(smaller, seen, epochs=tuned.epochs, recovery=True, batch_size=128, device=problem.device, teacher=teacher)
    row[f"{name} seconds"] = time.perf_counter() - start
    return smaller


def parted(images: ImageSet, number: int) -> tuple[ImageSet, ImageSet]:
    """So many of the images, the same ones every time, and the others."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[:number]), images.subset(order[number:])


def score(row: dict[str, Any], name: str, module: nn.Module, problem: Problem, images: Images) -> None:
    """Loss (at the best temperature) and accuracy on what is judged."""
    judged = [pair for kept in (problem.data.search, images.held) for pair in kept.batches(500)]
    with torch.inference_mode():
        logits = torch.cat([module(pixels) for pixels, _ in judged])
    result = measure(logits, torch.cat([labels for _, labels in judged]))
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
        f"over {plans} plans of equal MACs, by loss / by accuracy** (`python scripts/bench_proxies.py`)"
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
