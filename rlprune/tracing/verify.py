"""Whether the traced structure of a network is its true one.

What is written into a network's code cannot be seen in one run: a number of channels, the place where it splits them.
A network that is really cut is therefore run as well: every channel that is left must be where the dense network says.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import nn

from rlprune.graph.structure import WHOLE, Graph
from rlprune.graph.surgery import Slicer, install
from rlprune.tracing.coupling import Coupling, Side, follow
from rlprune.tracing.examples import Example
from rlprune.tracing.running import USUAL
from rlprune.utils.modules import copy_sharing_weights, named_tensors

MISREAD = "the number of its channels, or the order of them, is fixed in the network's code"
FAILS = "without some of its channels the network ends in a {}"
NUMBER = re.compile(r"(?<![^._])\d+(?![^._])")


def misread_groups(
    module: nn.Module,
    graph: Graph,
    example: Example,
    coupling: Coupling,
    declared: Collection[Side] = (),
    more: Sequence[Example] = (),
) -> dict[str, str]:
    """The groups that cannot be cut as they were traced: name -> why.

    Args:
        module: the dense network; left as it was.
        graph: what was traced.
        example: one input.
        coupling: the same, before its channels were gathered into groups.
        declared: sides that were declared by hand.
        more: real inputs; they are looked at where the way through the network depends on the data.
    """
    more = more if coupling.steered else ()
    why: dict[int, str] = {}
    rng = np.random.default_rng(0)
    # The last channel goes first and stays last: what is tied to the end of the channels is found out.
    halves = [
        np.append(rng.permutation(size - 1) < count, False)
        for size, count in zip(graph.sizes, _counts(graph.sizes), strict=True)
    ]
    single = [np.arange(size) == size - 1 for size in graph.sizes]
    good = list(range(len(graph.groups)))
    for kept in (halves, single):

        def sound(numbers: list[int], kept: list[np.ndarray] = kept) -> bool:
            """Whether these groups can be cut together, the others being whole."""
            stays = np.ones(int(graph.sizes.sum()), dtype=bool)
            parts = graph.split(stays)
            for number in numbers:
                parts[number][:] = kept[number]
            wrong = _difference(module, graph, stays, (example, more), coupling, declared)
            why.update(dict.fromkeys(numbers, wrong or ""))
            return wrong is None

        good = _sound_ones(good, graph, sound)
    return {group.name: why[number] for number, group in enumerate(graph.groups) if number not in good}


def _counts(sizes: np.ndarray) -> list[int]:
    """About half the channels of every group, and another number for every group of the same size while there are any.

    Where groups that belong together were taken apart, their tensors no longer fit then.
    """
    seen: Counter[int] = Counter()
    counts = []
    for size in sizes.tolist():
        counts.append(1 + (size // 2 - 1 + seen[size]) % (size - 1))
        seen[size] += 1
    return counts


def _sound_ones(numbers: list[int], graph: Graph, sound: Callable[[list[int]], bool]) -> list[int]:
    """The groups that can be cut together, tried as many at once as possible."""
    if not numbers or sound(numbers):
        return numbers
    # Blocks of one kind have the same code, and the same names but for a number that stands by itself.
    kinds: dict[str, list[int]] = {}
    for number in numbers:
        kinds.setdefault(NUMBER.sub("0", graph.groups[number].name), []).append(number)
    good: list[int] = []
    for kind in kinds.values():
        _add_sound(kind, good, sound)
    return sorted(good)


def _add_sound(numbers: list[int], good: list[int], sound: Callable[[list[int]], bool]) -> None:
    if sound([*good, *numbers]):
        good += numbers
    # Where neither the first nor the last of a kind can be cut, the others are not tried one by one.
    elif len(numbers) > 1 and (sound([*good, numbers[0]]) or sound([*good, numbers[-1]])):
        _add_sound(numbers[: len(numbers) // 2], good, sound)
        _add_sound(numbers[len(numbers) // 2 :], good, sound)


def _difference(
    module: nn.Module,
    graph: Graph,
    stays: np.ndarray,
    inputs: tuple[Example, Sequence[Example]],
    coupling: Coupling,
    declared: Collection[Side],
) -> str | None:
    """Why a network that is cut so is not what was traced; None if it is."""
    smaller = copy_sharing_weights(module)
    with torch.no_grad():
        slicer = Slicer(graph, named_tensors(module))
        install(smaller, module, slicer.slices(stays), features=slicer.features(stays))
    example, more = inputs
    try:
        found = follow(smaller, example, coupling.by_groups, more)
    # A network with its numbers of channels written into its code can fail in any way at all.
    except Exception as error:
        return MISREAD if isinstance(error, USUAL) else FAILS.format(type(error).__name__)
    if coupling.trains and not found.trains:
        return MISREAD
    cut = [mine for mine in graph.split(stays) if not mine.all()]
    expected, given = [], []
    for axis in graph.axes:
        slots = axis.slots[(axis.slots == WHOLE) | stays[axis.slots]]
        channels = found.axes.get((axis.layer, axis.side))
        if channels is not None and len(channels) != len(slots):
            return MISREAD
        # What is declared by hand is so because it cannot be followed.
        if channels is not None and (axis.layer, axis.side) not in declared:
            expected.append(slots)
            given.append(channels)
    # What is one channel wide looks like what all channels share; then it is enough that it runs.
    if not given or all(mine.sum() < 2 for mine in cut):
        return None
    return None if _is_function(np.concatenate(given), np.concatenate(expected)) else MISREAD


def _is_function(given: np.ndarray, expected: np.ndarray) -> bool:
    """Whether equal numbers in `given` have equal ones in `expected`."""
    pairs = np.unique(np.stack([given, expected]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1]
