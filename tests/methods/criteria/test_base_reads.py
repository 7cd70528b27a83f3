"""Masks against channels that are really cut, and what is told where nothing can be seen."""

import numpy as np
import pytest
import torch
from scoring import BATCH, Folding, coupled
from torch import Tensor, nn

from rlprune.graph.surgery import prune
from rlprune.methods.criteria.base_reads import (
    OtherBatchError,
    by_image,
    masked,
    over_chunks,
    read_slots,
    tied_slots,
    watching,
)
from rlprune.tracing.build import build_graph


@pytest.mark.parametrize("seed", range(4))
def test_masks_of_zeros_and_ones_cut_channels(seed: int) -> None:
    net = coupled()
    graph = build_graph(net, BATCH[0][:1])
    kept = np.random.default_rng(seed).random(int(graph.sizes.sum())) < 0.7
    for mine in graph.split(kept):
        mine[0] = True
    mask = torch.from_numpy(kept).float().expand(len(BATCH[0]), -1)
    with masked(net, graph, mask, "this"):
        found = net(BATCH[0])
    torch.testing.assert_close(found, prune(net, graph, kept)(BATCH[0]))
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_every_image_has_a_mask_of_its_own() -> None:
    net = coupled()
    graph = build_graph(net, BATCH[0][:1])
    mask = torch.rand(6, int(graph.sizes.sum()))
    with masked(net, graph, mask, "this"):
        together = net(BATCH[0])
    for number in range(6):
        with masked(net, graph, mask[number : number + 1], "this"):
            torch.testing.assert_close(net(BATCH[0][number : number + 1])[0], together[number])


def test_what_reads_and_what_goes_with_its_inputs() -> None:
    net = coupled()
    graph = build_graph(net, BATCH[0][:1])
    names = {layer: name for name, layer in net.named_modules()}
    starts = {group.name: group.start for group in graph.groups}
    read = {names[layer]: slots for layer, slots in read_slots(net, graph).items()}
    assert read.keys() == {"body", "wide", "left", "right", "grouped", "hidden", "last"}
    assert (read["grouped"] - starts["left"]).tolist() == [0, 1, 2, 3, 4]
    assert (read["hidden"] - starts["grouped"]).tolist() == np.repeat(np.arange(4), 8).tolist()
    tied = {names[layer]: slots for layer, slots in tied_slots(net, graph).items()}
    assert {name: (slots - slots[0]).tolist() for name, slots in tied.items()} == {
        "depth": [0, 1, 2, 3, 4, 5],
        "pairs": [0, 0, 1, 1, 2, 2, 3, 3],
    }
    assert (tied["depth"][0], tied["pairs"][0]) == (starts["wide"], starts["grouped"])


def test_rows_of_images() -> None:
    assert by_image(nn.Conv2d(3, 2, 1), torch.zeros(4, 3, 5, 6), 4).shape == (4, 30, 3)
    assert by_image(nn.Linear(3, 2), torch.zeros(4, 5, 6, 3), 4).shape == (4, 30, 3)
    assert by_image(nn.Linear(3, 2), torch.zeros(4, 3), 4).shape == (4, 1, 3)
    assert by_image(nn.Linear(3, 2), torch.zeros(20, 6, 3), 1).shape == (1, 120, 3)
    with pytest.raises(OtherBatchError):
        by_image(nn.Linear(3, 2), torch.zeros(20, 6, 3), 4)


def test_one_image_at_a_time_where_rows_are_no_images() -> None:
    sizes = []

    def run(parts: list[slice]) -> np.ndarray:
        sizes.append([len(BATCH[0][part]) for part in parts])
        if len(parts) == 1:
            raise OtherBatchError
        return np.array([7])

    assert over_chunks(BATCH[0], run) == 7
    assert sizes == [[6], [1] * 6]


def test_nothing_is_left_behind_by_an_error() -> None:
    net = Folding(before=True).eval()
    graph = build_graph(net, BATCH[0][:1])

    def look(layer: nn.Module, features: Tensor, slots: np.ndarray) -> None:
        by_image(layer, features, 6)

    with pytest.raises(OtherBatchError), watching(net, graph, look, "this"):
        net(BATCH[0])
    assert not any(layer._forward_pre_hooks for layer in net.modules())
