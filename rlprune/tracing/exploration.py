"""All ways through a network, where they depend on the data: branches, exits, layers that only some images reach.

Python follows the data only by asking for numbers of it. Every such number is answered in another way once, as far as
the ways are few, so that what no image happens to reach is seen as well.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from rlprune.tracing.examples import Example
from rlprune.tracing.tracer import Tracer

WAYS = 16
"""Ways that no input takes by itself that are tried at most."""
NOISE = 2
"""Random inputs that are tried where nobody gives real ones."""
FAR = 1e30
"""Beyond any threshold."""
UNREACHED = "a layer that no input has reached may read it"


@dataclass(frozen=True)
class Work:
    """What one run costs: as the attributes of `Tracer`."""

    positions: dict[str, int]
    products: list[tuple[Tensor, int, str]]
    refused: dict[str, tuple[str, int]]

    def macs(self, sizes: Mapping[str, int]) -> int:
        """Multiply-accumulates, given the numbers of entries of all parameters and buffers."""
        found = sum(sizes[name] * times for name, times in self.positions.items())
        found += sum(labels.numel() * times for labels, times, _ in self.products)
        return found + sum(macs for _, macs in self.refused.values())


def explore(trace: Tracer, module: nn.Module, example: Example, more: Sequence[Example]) -> None:
    """Run a network under a tracer on all inputs, and on all ways that these do not take.

    What counts as its cost is the heaviest of the inputs' own ways.

    Args:
        trace: where the findings go.
        module: the network.
        example: an input.
        more: real ones; beyond the first they are looked at only where the way depends on the data.
    """
    sizes = {name: tensor.numel() for name, tensor in trace.tensors.items()}
    works = [_walk(trace, module, example)]
    ways = [(example, trace.decisions)]
    operations = trace.operations
    for number, other in enumerate(more or _noise(example)):
        # The same operations on other data show nothing new.
        if not trace.steered and (number or not more):
            break
        works.append(_walk(trace, module, other))
        ways.append((other, trace.decisions))
        trace.steered |= trace.operations != operations
    heaviest = max(works, key=lambda work: work.macs(sizes))
    trace.positions, trace.products = heaviest.positions, heaviest.products
    reasons = {layer: (why, 0) for work in works for layer, (why, _) in work.refused.items()}
    trace.refused = reasons | heaviest.refused
    trace.counting = False
    _take_other_ways(trace, module, ways)


def _walk(trace: Tracer, module: nn.Module, example: Example) -> Work:
    trace.positions, trace.products, trace.refused = {}, [], {}
    trace.run(module, example)
    return Work(trace.positions, trace.products, trace.refused)


def _noise(example: Example) -> list[Example]:
    """Inputs like another, of random numbers."""
    draws = torch.Generator().manual_seed(0)

    def like(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
            return leaf
        return torch.randn(leaf.shape, generator=draws).to(leaf)

    example = dict(example) if isinstance(example, Mapping) else example
    return [tree_map(like, example) for _ in range(NOISE)]


def _take_other_ways(trace: Tracer, module: nn.Module, ways: list[tuple[Example, list[Any]]]) -> None:
    """Runs in which one number of the data is answered otherwise, and then those that this opens."""
    left = [(example, forced) for example, decisions in ways for forced in _others(decisions, 0)]
    tried: list[list[Any]] = []
    for example, forced in left:
        if len(tried) == WAYS:
            break
        if forced in tried:
            continue
        tried.append(forced)
        trace.forced = forced
        # What cannot be, such as a number that is above and below, may fail in any way.
        with suppress(Exception):
            trace.run(module, example)
            left += [(example, further) for further in _others(trace.decisions, len(forced))]
    trace.forced = []


def _others(decisions: list[Any], start: int) -> list[list[Any]]:
    """The same decisions up to one of them, which is another one."""
    found = []
    for place in range(start, len(decisions)):
        answer = decisions[place]
        others = [not answer] if isinstance(answer, bool) else [-FAR, FAR] if isinstance(answer, float) else []
        found += [[*decisions[:place], other] for other in others]
    return found


def keep_unreached(trace: Tracer, module: nn.Module) -> None:
    """Keep whole what layers may read, by their sizes, that some data may lead to and none of it has."""
    unreached = [tensor for name, tensor in module.named_parameters() if name not in trace.order]
    if not trace.steered or not unreached:
        return
    sizes = {size for tensor in unreached for size in tensor.shape[:2]}
    flattened = {tensor.shape[1] for tensor in unreached if tensor.dim() == 2}
    for outputs, _ in trace.sides.values():
        channels = len(outputs)
        if channels in sizes or any(size % channels == 0 for size in flattened):
            trace.ties.keep(outputs, UNREACHED)
