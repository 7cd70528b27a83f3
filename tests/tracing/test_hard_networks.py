"""Networks of `hard_networks` are understood as derived by hand, and do the same without the channels that go."""

import copy
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hard_networks import CASES, Case
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from rlprune.cost.exact import build_cost
from rlprune.graph.structure import WHOLE, Graph
from rlprune.graph.surgery import prune
from rlprune.tracing.build import build_graph

# A norm without parameters has nothing that could tell how many channels are left, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:input's size at dim=1 does not match num_features")
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SEEDS = range(3)


@lru_cache
def dense(case: Case) -> nn.Module:
    """The network in eval mode; no channel of it is dead, and none like another."""
    torch.manual_seed(0)
    module = case.make()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() < 2:
                parameter.uniform_(0.5, 1.5)
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                for name in ("running_mean", "running_var"):
                    getattr(layer, name).uniform_(0.5, 1.5)
    return module.eval()


@lru_cache
def traced(case: Case) -> Graph:
    return build_graph(dense(case), case.example)


@pytest.fixture(autouse=True)
def _slow_attention() -> Iterator[None]:
    """Attention as products of matrices, which are counted."""
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(True)


def random_mask(graph: Graph, seed: int) -> np.ndarray:
    """One channel of every group is left for seed 0, at least one for the others."""
    rng = np.random.default_rng(seed)
    counts = [1 if seed == 0 else rng.integers(1, group.channels + 1) for group in graph.groups]
    return np.concatenate(
        [rng.permutation(group.channels) < count for group, count in zip(graph.groups, counts, strict=True)]
    )


def kept_units(graph: Graph, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {group.name: np.flatnonzero(mine) for group, mine in zip(graph.groups, graph.split(mask), strict=True)}


def batch(case: Case, images: int, dtype: torch.dtype = torch.float32) -> Any:
    """Random inputs like the example."""

    def like(tensor: Tensor) -> Tensor:
        shape = (images, *tensor.shape[1:])
        return torch.randn(shape, dtype=dtype) if tensor.is_floating_point() else torch.randint(10, shape)

    return tree_map(like, case.example)


def call(module: nn.Module, inputs: Any) -> list[Any]:
    """All outputs of a network, whatever they are nested in."""
    if isinstance(inputs, dict):
        return tree_leaves(module(**inputs))
    return tree_leaves(module(*inputs) if isinstance(inputs, tuple) else module(inputs))


def shapes(outputs: list[Any]) -> list[Any]:
    return [getattr(output, "shape", output) for output in outputs]


def counted(module: nn.Module, inputs: Any) -> list[int]:
    """MACs and parameters, by torch's own count."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(module, inputs)
    return [counter.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters())]


@torch.no_grad()
def disconnected(module: nn.Module, graph: Graph, mask: np.ndarray) -> nn.Module:
    """The dense network in which nobody reads the channels that go."""
    silent = copy.deepcopy(module).double()
    parameters, stays, done = dict(silent.named_parameters()), np.append(mask, True), set()
    assert WHOLE == -1
    for tensor in (tensor for tensor in graph.tensors if tensor.name in parameters):
        for dim, axis in enumerate(tensor.axes):
            if axis is not None and graph.axes[axis].side in ("in", "fold"):
                read = torch.from_numpy(stays[graph.axes[axis].slots])
                parameters[tensor.name].mul_(read.view(-1, *[1] * (len(tensor.shape) - dim - 1)))
                done.add(graph.axes[axis].layer)
    # Of a grouped convolution goes, with an input, what is made of it alone, and nobody reads that either.
    grouped = {name for name, layer in module.named_modules() if getattr(layer, "groups", 1) > 1}
    assert done | grouped == {axis.layer for axis in graph.axes if axis.side == "in"} | grouped
    return silent


@torch.no_grad()
def by_hand(case: Case, graph: Graph, mask: np.ndarray) -> nn.Module:
    """A narrower network, and which of the dense network's numbers belong into it."""
    assert case.by_hand is not None
    kept = kept_units(graph, mask)
    smaller = case.make(**{name: len(units) for name, units in kept.items()})
    indices, state = case.by_hand(kept), {}
    for name, tensor in dense(case).state_dict().items():
        key = name if name in indices else name.rpartition(".")[0]
        for dim, index in enumerate(indices.get(key, ())[: tensor.dim()]):
            tensor = tensor.index_select(dim, torch.from_numpy(index))
        state[name] = tensor
    smaller.load_state_dict(state)
    return smaller.double().eval()


@EVERY
def test_groups_are_those_derived_by_hand(case: Case) -> None:
    graph = traced(case)
    if case.groups is not None:
        assert {group.name: group.channels for group in graph.groups} == case.groups
    assert case.refused <= set(graph.refused)
    cut = {axis.layer for axis in graph.axes if axis.side == "out"}
    assert not cut & set(graph.refused)


@EVERY
def test_costs_and_shapes(case: Case) -> None:
    module, graph, cost = dense(case), traced(case), build_cost(traced(case))
    one, several = batch(case, 1), batch(case, 3)
    wanted = shapes(call(module, several))
    for seed in SEEDS:
        mask = random_mask(graph, seed)
        smaller = prune(module, graph, mask)
        counts = [len(units) for units in kept_units(graph, mask).values()]
        assert cost(np.array(counts)).tolist() == counted(smaller, one)
        assert shapes(call(smaller, several)) == wanted


@EVERY
def test_what_goes_is_missing_only_where_it_was_read(case: Case) -> None:
    module, graph, inputs = dense(case), traced(case), batch(case, 3, torch.float64)
    for seed in SEEDS:
        mask = random_mask(graph, seed)
        expected = by_hand(case, graph, mask) if case.by_hand else disconnected(module, graph, mask)
        smaller = prune(module, graph, mask).double()
        for given, wanted in zip(call(smaller, inputs), call(expected, inputs), strict=True):
            torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-12)


@EVERY
def test_keeping_everything_changes_nothing(case: Case) -> None:
    module, graph, inputs = dense(case), traced(case), batch(case, 2)
    same = prune(module, graph, np.ones(graph.sizes.sum(), dtype=bool))
    for given, wanted in zip(call(same, inputs), call(module, inputs), strict=True):
        assert torch.equal(torch.as_tensor(given), torch.as_tensor(wanted))


@EVERY
def test_what_is_left_learns(case: Case) -> None:
    graph, inputs = traced(case), batch(case, 4)
    smaller = prune(dense(case), graph, random_mask(graph, 1)).train()
    before = copy.deepcopy(dict(smaller.named_parameters()))
    optimiser = torch.optim.SGD(smaller.parameters(), lr=0.01)
    outputs = [output for output in call(smaller, inputs) if isinstance(output, Tensor) and output.requires_grad]
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    optimiser.step()
    after = dict(smaller.named_parameters())
    assert {name for name in after if after[name].grad is None} <= {"spare.weight", "spare.bias"}
    assert any(not torch.equal(after[name], before[name]) for name in after)
