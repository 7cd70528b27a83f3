"""How well cheap scores of a plan rank the accuracy it ends with after fine-tuning.

    python scripts/benchmarks/proxies.py --model vgg16 --model-args width=0.25 --checkpoint FILE --data folder:PATH \\
        --budget 0.15 --out docs/benchmarks/proxies-vgg16-0.15.csv

Thirty plans of equal MACs are scored by every proxy and fine-tuned alike; Spearman's rank correlation with the
fine-tuned accuracy on the test images is printed. All proxies are judged on the same images, those of the search split
and as many training images as `rlprune.evaluation.finetuned` holds back, which nothing here learns from. A plan that
has been measured is not measured again; the same command in several processes, best with one thread each, fills one
file. With all of them measured the figures go to docs/benchmarks/proxies.json.

With `--epochs`, `--distill` or `--seed` another fine-tuning is foretold, by fewer proxies, and the figures are only
printed. `--supernet 4 12` adds those of `supernet.py`, tuned for as many steps as 4 and 12 plans take for an epoch:

    python scripts/benchmarks/proxies.py --model vgg16 --model-args width=0.25 --checkpoint FILE --data folder:PATH \\
        --images 10000 --budget 0.3 --epochs 3 --distill --supernet 4 12 --out vgg16-0.3.csv
"""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from common import grow, keep_cell, plan_arguments, unclaimed
from scipy.stats import spearmanr
from supernet import Supernet, shell, tune
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
from rlprune.methods.recovery.base import Repairs
from rlprune.models.checkpoint import save_weights
from rlprune.plans.counts import top_mask
from rlprune.tasks.classification import calibrated
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import evaluate, train
from rlprune.utils.files import write_text
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
PROXIES = ("as cut", "recalibrated", "merged", *TUNED)
SANDWICH = 4
"""Plans of a step of a supernet."""
BRIEF = {"1 epoch": Tuned(), "1 epoch, distilled": Tuned(distilled=True)}
"""What a shorter list tells beside one-shot scores."""


class Truth(NamedTuple):
    """The fine-tuning that is foretold, the brief ones that foretell it, by name, and the seed and teacher of all."""

    full: Tuned
    brief: dict[str, Tuned]
    seed: int
    teacher: "Remembering"


class Remembering(nn.Module):
    """A teacher that is asked once: with one seed and the same images, all fine-tunings see the same batches.

    Args:
        module: the dense network.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.lessons, self.place = module, list[torch.Tensor](), 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The outputs for the next batch of a fine-tuning."""
        if self.place == len(self.lessons):
            self.lessons.append(self.module(inputs))
        self.place += 1
        return self.lessons[self.place - 1]


class Images(NamedTuple):
    """What plans learn from, and what they are judged on beside the search split."""

    train: ImageSet
    held: ImageSet


def main() -> None:
    """Measure the plans that are left, then tell the correlations."""
    parser = plan_arguments(__doc__)
    parser.add_argument("--images", type=int, help="training images of every fine-tuning; all by default")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the fine-tuning that is foretold")
    parser.add_argument("--distill", action="store_true", help="that one learns from the dense network, too")
    parser.add_argument("--seed", type=int, default=0, help="of all fine-tunings")
    parser.add_argument(
        "--supernet", type=int, nargs="*", default=[], help="one-shot scores of supernets, tuned for so many tunings"
    )
    given = parser.parse_args()
    usual = (given.epochs, given.distill, given.seed) == (EPOCHS, False, 0)
    workload = open_workload(vars(given) | {"seed": 0}, Progress())
    full = Tuned(1, given.epochs, given.distill)
    truth = Truth(full, TUNED if usual else BRIEF, given.seed, Remembering(workload.module))
    held, rest = parted(workload.data.train, HELD)
    images = Images(parted(rest, given.images or len(rest))[0], held)
    projector = BudgetProjector(workload.cost, parse_budget(given.budget))
    evaluator = make_evaluator(workload, "l1", 0)
    chosen = known_plans(given.out.with_suffix(".plans.json"), lambda: plans(workload, projector, evaluator))
    for name in unclaimed(given.out, chosen):
        if not given.out.is_file() or name not in pd.read_csv(given.out)["plan"].tolist():
            row = {"plan": name, **measured(workload, images, chosen[name], evaluator, truth)}
            grow(given.out, row)
            print(name, f"{100 * row['test accuracy']:.2f} %", flush=True)
    table = pd.read_csv(given.out)
    for tunings in given.supernet:
        path = given.out.with_suffix(f".supernet-{tunings}.csv")
        table = table.merge(recovered(workload, images, chosen, evaluator, projector, tunings, path), on="plan")
    found = correlations(table)
    print(found.to_string(float_format="%.2f"))
    if len(table) == len(chosen) and usual:
        facts = {"plans": len(table), "epochs": EPOCHS, "spearman": found["Spearman"].to_dict()}
        accuracies = 100 * table["test accuracy"]
        facts |= {"low": accuracies.min(), "high": accuracies.max()}
        keep_cell("proxies", given, len(images.train), facts)


def known_plans(path: Path, find: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The plans of a file, which is written where there is none: finding them takes a search."""
    if not path.is_file():
        write_text(path, json.dumps({name: counts.tolist() for name, counts in find().items()}))
    return {name: np.array(counts) for name, counts in json.loads(path.read_text()).items()}


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


def measured(
    workload: Workload, images: Images, counts: np.ndarray, evaluator: Evaluator, truth: Truth
) -> dict[str, Any]:
    """Every proxy of one plan, and its fine-tuned accuracy on the test images."""
    mask = top_mask(workload.graph, counts, evaluator.scores)
    row: dict[str, Any] = {"counts": " ".join(str(int(count)) for count in counts)}
    row["macs_ratio"], row["params_ratio"] = workload.cost.ratios(counts)
    smaller = prune(workload.module, workload.graph, mask)
    if truth.brief is TUNED:
        score(row, "as cut", smaller, workload, images)
    recalibrate(smaller, workload.calibration()[0])
    score(row, "recalibrated", smaller, workload, images)
    if truth.brief is TUNED:
        merged = prune(compensated(workload, mask), workload.graph, mask)
        recalibrate(merged, workload.calibration()[0])
        score(row, "merged", merged, workload, images)
    if truth.brief is BRIEF:
        repairs = Repairs("reconstruct", workload.module, workload.graph, workload.calibration()[0])
        score(row, "reconstructed", repairs.cut(mask), workload, images)
    for name, tuned in truth.brief.items():
        score(row, name, fine_tuned(workload, images, mask, tuned, row, name, truth), workload, images)
    full = fine_tuned(workload, images, mask, truth.full, row, "full", truth)
    if truth.brief is TUNED:
        score(row, "full", full, workload, images)
    row["test accuracy"] = evaluate(full, workload.data.test, device=workload.device)[1]
    return row


def recovered(
    workload: Workload,
    images: Images,
    chosen: dict[str, np.ndarray],
    evaluator: Evaluator,
    projector: BudgetProjector,
    tunings: int,
    path: Path,
) -> pd.DataFrame:
    """What a supernet says of all plans, one pass each; kept in a file.

    Args:
        workload, images, chosen, evaluator, projector: as above; it is tuned on plans like those that are chosen.
        tunings: how many plans could be tuned for an epoch in as many steps.
        path: of the file; its weights are kept beside it.
    """
    if not path.is_file():
        bases = [(chosen["uniform"], 0.5), (chosen["sensitivity"], 0.35)]
        draw = shell(workload.graph, evaluator.scores, projector, bases, SANDWICH - 1)
        config = TrainingConfig(epochs=round(tunings / SANDWICH), recovery=True, batch_size=128)
        net, start = Supernet(workload.module, workload.graph), time.perf_counter()
        tune(net, draw, images.train, config, workload.module, device=workload.device)
        print(f"supernet: {time.perf_counter() - start:.0f} s", flush=True)
        save_weights(net.module, path.with_suffix(".safetensors"))
        rows = []
        for name, counts in chosen.items():
            smaller = prune(net.module, workload.graph, top_mask(workload.graph, counts, evaluator.scores))
            recalibrate(smaller, workload.calibration()[0])
            rows.append({"plan": name})
            score(rows[-1], f"supernet, {tunings} tunings", smaller, workload, images)
        write_text(path, pd.DataFrame(rows).to_csv(index=False))
    return pd.read_csv(path)


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
    workload: Workload, images: Images, mask: np.ndarray, tuned: Tuned, row: dict[str, Any], name: str, truth: Truth
) -> nn.Module:
    """A pruned network after a fine-tuning; the seconds go into the row."""
    smaller, start = prune(workload.module, workload.graph, mask), time.perf_counter()
    seen = parted(images.train, len(images.train) // tuned.part)[0]
    truth.teacher.place = 0
    teacher = truth.teacher if tuned.part == 1 else workload.module
    train(
        smaller,
        seen,
        TrainingConfig(epochs=tuned.epochs, recovery=True, batch_size=128, seed=truth.seed),
        device=workload.device,
        teacher=teacher if tuned.distilled else None,
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
    """Spearman's correlation of every proxy with the fine-tuned test accuracy, over all plans and the better half.

    Losses count with their sign turned.
    """
    ends = table["test accuracy"]
    signed = {}
    for column in table.columns:
        told = table[column].nunique() > 1
        if told and column.endswith((" loss", " accuracy")) and column != "test accuracy":
            signed[column] = -table[column] if column.endswith("loss") else table[column]
    signed["parameters"] = table["params_ratio"]
    parts = {"Spearman": slice(None), "better half": ends.nlargest(len(ends) // 2).index}
    found = {
        part: {name: spearmanr(values[rows], ends[rows]).statistic for name, values in signed.items()}
        for part, rows in parts.items()
    }
    return pd.DataFrame(found)


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
