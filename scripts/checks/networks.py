"""Prove on a zoo of networks that what is pruned computes what was evaluated, and write docs/networks.md.

    python scripts/checks/networks.py                       # small images
    python scripts/checks/networks.py --full                # images of natural size, and the networks that need them
    python scripts/checks/networks.py --only 'torchvision/*net*'  # prints the table, writes nothing

Weights are random, with batch-norm statistics that leave no channel dead; nothing is downloaded.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatch
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from zoo import NETWORKS

from rlprune.artifacts.pruned import load, save_pruned
from rlprune.cost.budget import Budget
from rlprune.cost.exact import Cost, build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.evaluation.sliced import SliceRunner, recalibrate
from rlprune.graph.structure import WHOLE, Axis, Graph
from rlprune.graph.surgery import Slicer, install, prune
from rlprune.models.registry import build_model
from rlprune.plans.counts import top_mask
from rlprune.plans.plan import make_plan
from rlprune.tracing.build import build_graph
from rlprune.tracing.examples import output_tensors
from rlprune.utils.device import machine
from rlprune.utils.modules import copy_module, copy_sharing_weights, named_tensors

REPORT = Path(__file__).parents[2] / "docs" / "networks.md"
CLASSES = 10
PLANS = 3
TOLERANCE = 1e-4
"""Relative to how much outputs differ between images."""
PASSED, FAILED, NOT_ASKED = "✓", "✗", "n/a"


def main() -> None:
    """Check the networks one by one, print how it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks to check; writes nothing")
    parser.add_argument("--full", action="store_true", help="natural image sizes, and the largest networks as well")
    given = parser.parse_args()
    names = [name for name in NETWORKS if fnmatch(name, given.only) and (given.full or NETWORKS[name].small)]
    if not names:
        sys.exit(f"networks.py: no network is called '{given.only}': known are {', '.join(NETWORKS)}")
    # Small operations are slower on several threads, and much slower on a busy machine.
    torch.set_num_threads(1)
    results = []
    with reloading() as fresh:
        for number, name in enumerate(names, 1):
            start = time.perf_counter()
            results.append(check(name, fresh, small=not given.full))
            marks = " ".join(f"{what} {mark(found)}" for what, found in results[-1].checks.items())
            print(f"{number}/{len(names)} {name}: {marks} ({time.perf_counter() - start:.0f} s)", flush=True)
    if given.only == "*":
        from rlprune.utils.files import write_text

        write_text(REPORT, report(results))
    else:
        print(report(results))
    if failed := [result.name for result in results if result.failures]:
        sys.exit(f"networks.py: {len(failed)} of {len(names)} fail: {', '.join(failed)}")


@dataclass
class Result:
    """What was found of one network.

    Attributes:
        name: of the network.
        size: side of the images, pixels.
        checks: what was checked -> ✓, n/a and why, or what went wrong.
        groups: decisions an agent takes.
        refused: layer -> why its output channels are never cut.
        smallest: fractions of MACs and parameters that the smallest plan keeps.
        seconds: that tracing took.
    """

    name: str
    size: int
    checks: dict[str, str] = field(default_factory=dict)
    groups: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    smallest: tuple[float, float] = (1.0, 1.0)
    seconds: float = 0.0

    @property
    def failures(self) -> dict[str, str]:
        """The checks that failed, and what went wrong."""
        return {what: found for what, found in self.checks.items() if mark(found) == FAILED}


def mark(found: str) -> str:
    """✓, n/a or ✗."""
    return found if found == PASSED else NOT_ASKED if found.startswith(NOT_ASKED) else FAILED


def check(name: str, fresh: Executor, *, small: bool) -> Result:
    """Put one network to every check.

    Args:
        name: one of `NETWORKS`.
        fresh: runs functions in another process.
        small: use the small images.
    """
    network = NETWORKS[name]
    result = Result(name, (network.small if small else None) or network.full)
    torch.manual_seed(0)
    try:
        module = build_model(**description(name, result.size)).eval()
        images = torch.randn(2, 3, result.size, result.size)
        enliven(module, images)
        start = time.perf_counter()
        graph = build_graph(module, images[:1])
        result.seconds = time.perf_counter() - start
    # Whatever goes wrong is told in the table, and the other networks are still checked.
    except Exception as error:
        expected = isinstance(error, UserError) and network.keeps == 1
        result.checks = dict.fromkeys(CHECKS, f"{NOT_ASKED}: {error}" if expected else said(error))
        return result
    case = Case(name, module, graph, build_cost(graph), images, fresh)
    least = case.cost.ratios(case.projector().minimum)
    result.groups, result.refused, result.smallest = len(graph.groups), graph.refused, (least[0], least[1])
    for what, function in CHECKS.items():
        try:
            result.checks[what] = function(case) or PASSED
        except Exception as error:
            result.checks[what] = said(error)
    return result


def said(error: Exception) -> str:
    """One line about an error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (AssertionError, UserError)) else f"{type(error).__name__}: {text}"


def description(name: str, size: int) -> dict[str, Any]:
    """The arguments of `build_model`."""
    network = NETWORKS[name]
    args = dict(network.args) | ({network.size_arg: size} if network.size_arg else {})
    file, _, factory = name.rpartition(".py:")
    model = f"{Path(__file__).resolve().parent / file}.py:{factory}" if file else name
    return {"name": model, "classes": CLASSES, "image_size": size, "args": args}


@torch.no_grad()
def enliven(module: nn.Module, images: Tensor) -> None:
    """Random weights that keep signals at one scale (He et al., 2015, arXiv 1502.01852), and no dead channel.

    Fresh networks have layers of zeros and scales of 1e-6, behind which every mistake would be hidden.
    """
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, (2 * len(parameter) / parameter.numel()) ** 0.5)
        elif name.endswith("bias"):
            parameter.uniform_(-0.1, 0.1)
        else:
            parameter.uniform_(0.5, 1.5)
    recalibrate(module, images)


@dataclass
class Case:
    """A network, its graph and random plans for it."""

    name: str
    module: nn.Module
    graph: Graph
    cost: Cost
    images: Tensor
    fresh: Executor
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def projector(self, macs: float | None = None, round_to: int = 1) -> BudgetProjector:
        """Plans with no bound, or one on the MACs."""
        return BudgetProjector(self.cost, Budget({} if macs is None else {"macs": macs}), round_to)

    def mask(self, counts: np.ndarray) -> np.ndarray:
        """Which channels stay, at random."""
        return top_mask(self.graph, counts, self.rng.random(int(self.graph.sizes.sum())))

    @cached_property
    def counts(self) -> np.ndarray:
        """(plans, groups) kept channels of random plans."""
        ratios = self.rng.uniform(0.2, 1, (PLANS, len(self.graph.groups)))
        return self.projector().quantise(ratios * self.graph.sizes)

    @cached_property
    def plans(self) -> list[tuple[np.ndarray, nn.Module]]:
        """Masks of the random plans, and the networks that they leave, in eval mode."""
        masks = [self.mask(counts) for counts in self.counts]
        return [(mask, prune(self.module, self.graph, mask).eval()) for mask in masks]


@torch.no_grad()
def slices(case: Case) -> str:
    """Slices compute what the physically smaller network computes, where it gives scores after recalibration."""
    runner = SliceRunner(case.module, case.graph, case.images)
    for mask, smaller in case.plans:
        recalibrated = copy_sharing_weights(smaller)
        if is_classifier(case.module(case.images[:1])):
            recalibrate(recalibrated, case.images)
            sliced = runner.logits(mask, case.images)
        else:
            view = copy_sharing_weights(case.module)
            slicer = Slicer(case.graph, named_tensors(case.module))
            install(view, case.module, slicer.slices(mask), features=slicer.features(mask))
            sliced = view(case.images)
        agree(sliced, recalibrated(case.images))
    return ""


@torch.no_grad()
def disconnected(case: Case) -> str:
    """The smaller network computes what the dense one does when nobody reads the removed channels."""
    if mixes := NETWORKS[case.name].mixes:
        return f"{NOT_ASKED}: {mixes}"
    # Batch norm is not recalibrated here, and little may be left of the signal: float32 could not see it.
    dense, images = copy_module(case.module).double(), case.images.double()
    for mask, smaller in case.plans:
        unread = {f"{axis.layer}.weight": unread_weight(dense, axis, mask) for axis in inputs(case.graph)}
        agree(copy_module(smaller).double()(images), functional_call(dense, unread, images))
    return ""


def inputs(graph: Graph) -> list[Axis]:
    """The sides on which layers read channels."""
    return [axis for axis in graph.axes if axis.side == "in"]


def unread_weight(module: nn.Module, axis: Axis, mask: np.ndarray) -> Tensor:
    """The weight of a layer with zeros for every input channel that is removed."""
    layer = module.get_submodule(axis.layer)
    weight = layer.get_parameter("weight")
    parts = getattr(layer, "groups", 1)
    read = torch.from_numpy((axis.slots == WHOLE) | mask[axis.slots]).to(weight.dtype)
    # Every part of a grouped convolution reads channels of its own.
    split = weight.reshape(parts, -1, weight.shape[1], *weight.shape[2:])
    return (split * read.view(parts, 1, -1, *[1] * (weight.dim() - 2))).view_as(weight)


def counted(case: Case) -> str:
    """MACs and parameters are those that torch counts, to the last one."""
    if uncounted := NETWORKS[case.name].uncounted:
        return f"{NOT_ASKED}: {uncounted}"
    pairs = [(case.graph.sizes, case.module), *zip(case.counts, (smaller for _, smaller in case.plans), strict=True)]
    for counts, module in pairs:
        ours, theirs = case.cost(counts), count(module, case.images[:1])
        assert (ours == theirs).all(), f"counted {ours.astype(int).tolist()}, torch has {theirs}"
    return ""


@torch.no_grad()
def count(module: nn.Module, image: Tensor) -> list[int]:
    """MACs of one image by torch's own counter, and parameters."""
    before = torch.backends.mha.get_fastpath_enabled()
    # Fused kernels hide their matrix products from the counter.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return [counter.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters())]


def trains(case: Case) -> str:
    """The smaller network takes a step on everything it returns in train mode."""
    module = case.plans[0][1].train()
    outputs = output_tensors(module(case.images))
    loss = sum((F.cross_entropy(x, x.new_zeros(x.shape[:1] + x.shape[2:], dtype=torch.long)) for x in outputs), start=0)
    assert isinstance(loss, Tensor)
    loss.backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert gradients, "no parameter gets a gradient"
    assert loss.isfinite(), f"the loss is {loss.item()}"
    assert all(gradient.isfinite().all() for gradient in gradients), "a gradient is not finite"
    # Random networks can have steep losses.
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    torch.optim.SGD(module.parameters(), lr=1e-2).step()
    recalibrate(module, case.images)
    return ""


@torch.no_grad()
def reloads(case: Case) -> str:
    """After that step, saved and loaded in another process, it is the same network."""
    mask, smaller = case.plans[0]
    network = description(case.name, case.images.shape[-1])
    network["model"] = network.pop("name")
    with tempfile.TemporaryDirectory() as folder:
        save_pruned(smaller, make_plan(case.graph, mask, network), Path(folder))
        there = case.fresh.submit(outputs_there, folder, network["model"], case.images.numpy()).result()
    agree([torch.from_numpy(output) for output in there], smaller(case.images))
    return ""


def outputs_there(folder: str, model: str, images: np.ndarray) -> list[np.ndarray]:
    """What the network in a folder returns; runs in another process."""
    with torch.no_grad():
        return [output.numpy() for output in output_tensors(load(folder, model=model)(torch.from_numpy(images)))]


def reloading() -> ProcessPoolExecutor:
    """One other process, which starts afresh and serves all networks."""
    threads = torch.get_num_threads()
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,))


@torch.no_grad()
def minimum(case: Case) -> str:
    """No group is ever empty, and the smallest plan runs."""
    least = case.projector().minimum
    assert (least >= 1).all(), "a group is empty in the smallest plan"
    assert (case.counts >= 1).all(), "a group is empty in a random plan"
    smallest = prune(case.module, case.graph, case.mask(least)).eval()
    assert all(output.isfinite().all() for output in output_tensors(smallest(case.images))), "an output is not finite"
    ours, theirs = case.cost(least), count(smallest, case.images[:1])
    assert NETWORKS[case.name].uncounted or (ours == theirs).all(), (
        f"counted {ours.astype(int).tolist()}, torch has {theirs}"
    )
    return ""


def lands(case: Case) -> str:
    """A budget half way between the smallest plan and the dense network is kept to, in whole multiples."""
    widths = np.array([group.width for group in case.graph.groups])
    for round_to in (1, 8, 16):
        macs = (1 + case.cost.ratios(case.projector(round_to=round_to).minimum)[0]) / 2
        wished = case.rng.uniform(0.2, 1, len(widths)) * case.graph.sizes
        counts = case.projector(macs, round_to).project(wished[None])[0]
        kept = count(prune(case.module, case.graph, case.mask(counts)).eval(), case.images[:1])[0]
        allowed = macs * case.cost.dense[0]
        assert kept <= allowed * (1 + 1e-9), f"{kept} MACs are above {allowed:.0f} with round_to={round_to}"
        odd = ((counts * widths) % round_to != 0) & (counts != case.graph.sizes)
        assert not odd.any(), f"{case.graph.groups[odd.argmax()].name} is no multiple of round_to={round_to}"
    return ""


def prunable(case: Case) -> str:
    """As much as is known to be possible can be cut: what is refused by mistake would pass every other check."""
    kept, known = case.cost.ratios(case.projector().minimum)[0], NETWORKS[case.name].keeps
    assert kept <= known, f"the smallest plan keeps {kept:.2g} of the MACs, above {known:g}"
    return ""


CHECKS: dict[str, Callable[[Case], str]] = {
    "prunable": prunable,
    "disconnected": disconnected,
    "slices": slices,
    "counted": counted,
    "minimum": minimum,
    "lands": lands,
    # Changes the weights of the first plan's network, which is then saved.
    "trains": trains,
    "reloads": reloads,
}


def is_classifier(output: Any) -> bool:
    """Whether an output is class scores."""
    return isinstance(output, Tensor) and output.dim() == 2


def agree(given: Any, expected: Any) -> None:
    """Outputs are the same up to rounding, compared with how much they differ between images."""
    for ours, theirs in zip(output_tensors(given), output_tensors(expected), strict=True):
        assert ours.shape == theirs.shape, f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)} differ"
        assert theirs.isfinite().all(), "outputs are not finite"
        spread = (theirs - theirs[:1]).abs().max()
        assert spread > 0, "outputs do not depend on the image"
        error = ((ours - theirs).abs().max() / spread).item()
        assert error <= TOLERANCE, f"outputs differ by {error:.1e} of their spread over the images"


def report(results: list[Result]) -> str:
    """The page with the table, and every reason below it."""
    reasons = sorted({reason for result in results for reason in result.refused.values()})
    letters = {reason: letter(number) for number, reason in enumerate(reasons)}
    columns = [
        "network",
        "pixels",
        "groups",
        "whole layers",
        "smallest MACs",
        "smallest parameters",
        *CHECKS,
        "tracing",
    ]
    lines = [columns, ["---"] * len(columns), *(row(result, letters) for result in results)]
    passed = sum(not result.failures for result in results)
    parts = [
        HEADER,
        f"{passed} of {len(results)} networks pass everything that can be asked of them.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        footnotes(results, FAILED),
        "Whole layers, whose output channels are never cut:",
        "\n".join(f"- {letters[reason]}: {reason}" for reason in reasons),
        "Not asked:",
        footnotes(results, NOT_ASKED),
        f"*{machine()}, {date.today().isoformat()}*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def footnotes(results: list[Result], which: str) -> str:
    """What was found where the table has a certain mark, networks and checks of the same reason together."""
    notes: dict[str, dict[str, list[str]]] = {}
    for result in results:
        for what, found in result.checks.items():
            if mark(found) == which:
                notes.setdefault(found.removeprefix(f"{NOT_ASKED}: "), {}).setdefault(result.name, []).append(what)
    lines = []
    for why, where in notes.items():
        names = [f"`{name}` ({', '.join(whats)})" for name, whats in where.items()]
        lines.append(f"- {which} {', '.join(names)}: {why}")
    return "\n".join(lines)


def row(result: Result, letters: Mapping[str, str]) -> list[str]:
    """One network's cells."""
    whole = Counter(letters[reason] for reason in result.refused.values())
    layers = ", ".join(f"{count} {letter}" for letter, count in sorted(whole.items())) or "all"
    smallest = [f"{100 * ratio:.2g} %" if ratio < 1 else "all" for ratio in result.smallest]
    head = [f"`{result.name}`", str(result.size), str(result.groups), layers, *smallest]
    return [*head, *(mark(result.checks[what]) for what in CHECKS), f"{result.seconds:.1f} s"]


def letter(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


HEADER = f"""# Networks

Written by `python scripts/checks/networks.py`: {PLANS} random plans for each network, with random weights. In the table

- **disconnected**: the pruned network computes what the dense one computes when nobody reads the removed channels
  (not asked where statistics over channels are taken: layer norm, attention, ...);
- **slices**: a search's evaluation computes what the pruned network computes;
- **counted**: MACs and parameters are exactly those that torch's own counter finds;
- **minimum**: the smallest plan runs, no group is empty; **lands**: a budget is kept to, also in multiples of 8 and 16;
- **trains**, **reloads**: it takes a training step, auxiliary heads included; `rlprune.load` finds the same network in
  another process.

Outputs agree to {TOLERANCE:g} of how much they vary over the images. Smallest is what the plan with one channel in
every group keeps; where it keeps more than is known to be possible, **prunable** fails."""


if __name__ == "__main__":
    main()
