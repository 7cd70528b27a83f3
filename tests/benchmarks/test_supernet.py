"""Shared weights that learn from a plan against the network that is really cut."""

import copy

import numpy as np
import pytest
import torch
from supernet import Supernet, shell, tune
from torch import nn

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.data.images import MemoryImages
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.models.registry import build_model
from rlprune.tracing.build import build_graph
from rlprune.training.config import TrainingConfig

CPU = torch.device("cpu")


def random_mask(graph: Graph, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.permutation(group.channels) < rng.integers(1, group.channels + 1) for group in graph.groups]
    )


def step(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
                parameter.grad = None


# The depthwise convolutions of MobileNet-V2 lose groups, the residual sums of ResNet-20 tie layers.
@pytest.mark.parametrize("name", ["vgg16", "resnet20", "mobilenetv2"])
def test_a_step_of_shared_weights_is_that_of_the_network_that_is_cut(name: str) -> None:
    torch.manual_seed(0)
    module = build_model(name, classes=4, image_size=32, args={"width": 0.125}).eval()
    module = module.to(memory_format=torch.channels_last)
    graph, images = build_graph(module, torch.zeros(1, 3, 32, 32)), torch.randn(6, 3, 32, 32)
    before = copy.deepcopy(module.state_dict())
    net = Supernet(module, graph)
    for seed in range(3):
        kept = np.ones(len(random_mask(graph, 0)), dtype=bool) if seed == 1 else random_mask(graph, seed)
        cut = prune(net.module, graph, kept).train()
        start = copy.deepcopy(net.module.state_dict())
        expected = cut(images)
        found = net(kept, images)
        torch.testing.assert_close(found, expected)
        for network, output in ((cut, expected), (net.module, found)):
            output.square().sum().backward()
            step(network)
        # What is kept has moved as it moves there.
        torch.testing.assert_close(
            dict(prune(net.module, graph, kept).named_parameters()), dict(cut.named_parameters()), rtol=1e-4, atol=1e-4
        )
        assert any(not torch.equal(value, start[key]) for key, value in net.module.state_dict().items())
    for key, value in net.module.state_dict().items():
        if "running" in key or "batches" in key:
            assert torch.equal(value, before[key])
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_tuning_teaches_the_plans_that_are_drawn_and_nothing_else() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()  # fmt: skip
    graph = build_graph(teacher, torch.zeros(1, 3, 8, 8))
    images = MemoryImages(torch.arange(64) % 2, torch.randint(256, (64, 3, 8, 8), dtype=torch.uint8), augmentable=False)
    half = np.arange(8) < 4
    net = Supernet(teacher, graph)
    config = TrainingConfig(epochs=2, lr=0.05, batch_size=16, weight_decay=0.0)
    tune(net, lambda rng: [half, half], images, config, teacher, device=CPU)
    filters, dense = net.module[0].weight, teacher[0].weight
    assert torch.equal(filters[4:], dense[4:])
    assert not torch.isclose(filters[:4], dense[:4]).all(dim=(1, 2, 3)).any()


def test_the_shell_has_plans_of_equal_cost_alone() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    )
    graph = build_graph(module, torch.zeros(1, 3, 6, 6))
    projector = BudgetProjector(build_cost(graph), parse_budget("0.5"))
    base = np.array([10, 9])
    draw = shell(graph, np.arange(32.0), projector, [(base, 0.5)], 5)
    rng = np.random.default_rng(0)
    drawn = [tuple(mask.reshape(2, 16).sum(axis=1)) for _ in range(4) for mask in draw(rng)]
    assert drawn[::6] == [tuple(base)] * 4
    assert len(set(drawn)) > 4
    for a, b in set(drawn) - {tuple(base)}:
        # One more channel would cost more than half.
        wider = [macs(*plan) for plan in ((a + 1, b), (a, b + 1)) if max(plan) <= 16]
        assert macs(a, b) <= macs(16, 16) / 2 < min(wider)


def macs(a: int, b: int) -> int:
    """3 x 3 filters on 4 x 4 and on 2 x 2 positions, and a linear layer."""
    return 432 * a + 36 * a * b + 8 * b
