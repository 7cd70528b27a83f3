"""Costs of kernel cuts against torch's counter on the network that is really cut."""

import numpy as np
import pytest
import torch
from torch import nn
from workshop import macs

from rlprune.cost.exact import build_cost, group_costs
from rlprune.graph.kernel_structure import kernel_structure
from rlprune.graph.kernels import KernelCut, cut_kernels
from rlprune.tracing.build import build_graph


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 4, 3, stride=2, bias=False)
        self.outer = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.stem(images)))
        features = self.outer(torch.relu(self.inner(features))) + features[:, :, :7, :7]
        return self.head(features.mean((2, 3)))


INPUTS = {"stem": 3, "inner": 8, "outer": 4}


@pytest.mark.parametrize("counts", [(3, 8, 4), (1, 1, 1), (2, 8, 1), (3, 5, 2)])
def test_costs_are_those_of_the_network_that_is_cut(counts: tuple[int, ...]) -> None:
    network = Residual()
    graph = kernel_structure(build_graph(network, torch.zeros(1, 3, 16, 16)), INPUTS, {})
    filters = ((0, 1), (2, 3))
    cuts = {
        name: KernelCut(
            filters if name == "inner" else ((0, 1, 2, 3), (4, 5, 6, 7)), (tuple(range(count)), tuple(range(count)))
        )
        for name, count in zip(INPUTS, counts, strict=True)
    }
    smaller = cut_kernels(network, cuts)
    cost = build_cost(graph)
    assert cost(np.array(counts)).tolist() == [macs(smaller), sum(part.numel() for part in smaller.parameters())]
    weights = [smaller.get_parameter(f"{name}.conv.weight").numel() for name in INPUTS]
    assert group_costs(graph, np.array(counts))[:, 1].tolist() == weights


def test_groups_are_layers_in_a_row() -> None:
    graph = kernel_structure(build_graph(Residual(), torch.zeros(1, 3, 16, 16)), INPUTS, {"stem": "why"})
    assert [group.name for group in graph.groups] == list(INPUTS)
    assert graph.sizes.tolist() == [3, 8, 4]
    assert graph.refused == {"stem": "why"}
    assert graph.blocks == ()
    # The inner layer reads the stem, the outer one the inner one; the sum is read by neither.
    assert [group.consumers for group in graph.groups] == [("inner",), ("outer",), ()]
    assert graph.reads.tolist() == [[False] * 3, [True, False, False], [False, True, False]]
