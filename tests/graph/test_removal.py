"""Blocks that are taken out, against networks that are made without them by hand."""

import numpy as np
import pytest
import torch
from residual import EXAMPLE, attention, basic, by_hand, convnext, inverted, network
from torch import nn

from rlprune.errors import UserError
from rlprune.evaluation.sliced import SliceRunner, recalibrate
from rlprune.graph.removal import remains_of, without
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph
from rlprune.utils.modules import named_tensors


def mixed() -> nn.Sequential:
    return network(basic(), inverted(), convnext(), attention(), basic())


def random_mask(graph: Graph, out: list[int], seed: int = 0) -> np.ndarray:
    """Every group cut somehow, and blocks taken out."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, graph.sizes + 1)
    for number in out:
        counts[list(graph.blocks[number].groups)] = 0
    return top_mask(graph, counts, rng.random(graph.sizes.sum()))


def without_by_hand(net: nn.Sequential, graph: Graph, kept: np.ndarray, out: list[int]) -> nn.Module:
    """Blocks replaced in a copy, which is then traced and cut as any other network."""
    parts = {number: nn.ReLU() if graph.blocks[number].remains else nn.Identity() for number in out}
    smaller = by_hand(net, parts)
    graph_without = build_graph(smaller, EXAMPLE)
    masks = {group.name: mine for group, mine in zip(graph.groups, graph.split(kept), strict=True)}
    return prune(smaller, graph_without, np.concatenate([masks[group.name] for group in graph_without.groups]))


@pytest.mark.parametrize("out", [[0], [1], [2], [3], [0, 2], [1, 3, 4], [0, 1, 2, 3, 4]])
def test_what_is_left_is_what_a_network_without_them_is(out: list[int]) -> None:
    net = mixed()
    graph = build_graph(net, EXAMPLE)
    kept = random_mask(graph, out)
    smaller, expected = prune(net, graph, kept), without_by_hand(net, graph, kept, out)
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(smaller(images), expected(images), rtol=0, atol=0)
    shapes = {name: tensor.shape for name, tensor in named_tensors(expected).items()}
    assert {name: tensor.shape for name, tensor in named_tensors(smaller).items()} == shapes
    assert len(build_graph(net, EXAMPLE).blocks) == 5, "the dense network is as it was"


def test_sliced_evaluation_equals_the_cut_network_and_is_whole_again() -> None:
    net = mixed()
    graph = build_graph(net, EXAMPLE)
    images, calibration = torch.randn(5, 3, 8, 8), torch.randn(16, 3, 8, 8)
    runner = SliceRunner(net, graph, calibration)
    for out in ([0, 2], [], [1, 3, 4], [0, 1, 2, 3, 4], []):
        kept = random_mask(graph, out, seed=len(out))
        smaller = prune(net, graph, kept)
        recalibrate(smaller, calibration)
        with torch.inference_mode():
            expected = smaller(images)
        torch.testing.assert_close(runner.logits(kept, images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("out", [[0], [1, 3], [0, 1, 2, 3, 4]])
def test_the_structure_that_is_left_is_what_tracing_finds(out: list[int]) -> None:
    net = mixed()
    graph = build_graph(net, EXAMPLE)
    kept = random_mask(graph, out)
    for mine in graph.split(kept):
        # Two at least: one channel is traced otherwise.
        mine[:2] |= mine.any()
    cut, traced = graph.cut(kept), build_graph(prune(net, graph, kept).eval(), EXAMPLE)
    assert cut.groups == traced.groups
    assert cut.tensors == traced.tensors
    assert cut.layers == traced.layers
    assert cut.refused == traced.refused
    assert cut.blocks == traced.blocks
    for ours, theirs in zip((*cut.axes, *cut.products), (*traced.axes, *traced.products), strict=True):
        assert ours.slots.tolist() == theirs.slots.tolist()


def test_a_group_without_a_channel_is_an_error_for_people() -> None:
    net = mixed()
    graph = build_graph(net, EXAMPLE)
    kept = np.ones(graph.sizes.sum(), dtype=bool)
    graph.split(kept)[0][:] = False
    with pytest.raises(UserError, match=r"'0' keeps no channel, and it belongs to no residual block"):
        prune(net, graph, kept)
    kept[:] = True
    graph.split(kept)[graph.blocks[1].groups[0]][:] = False
    with pytest.raises(UserError, match=r"'1\.1' goes whole or not at all, with all of 1\.1\.expand, 1\.1\.squeeze"):
        prune(net, graph, kept)


def test_what_remains_changes_nobody_elses_tensor() -> None:
    part = remains_of(basic(act=nn.ReLU(inplace=True)), "act")
    given = torch.tensor([-1.0, 2.0])
    assert part(given).tolist() == [0, 2]
    assert given.tolist() == [-1, 2]


@pytest.mark.parametrize(
    ("remains", "message"),
    [
        ({"1.9": ""}, "'1.9'"),
        ({"1.0": "relu"}, "'relu'"),
        ({"1.0": "conv1"}, "'conv1' has parameters"),
    ],
)
def test_what_a_network_does_not_have_is_an_error_for_people(remains: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        without(network(basic()), remains)
