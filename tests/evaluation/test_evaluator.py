import copy

import numpy as np
import pytest
import torch
from oracles import cut_by_torch_pruning
from torch import Tensor, nn

from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.sliced import SliceRunner, recalibrate
from rlprune.graph.structure import Graph
from rlprune.plans.counts import top_mask
from rlprune.tasks.base import Evaluation
from rlprune.tracing.build import build_graph


def plain() -> nn.Sequential:
    """Without batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).eval()


def by_hand(module: nn.Module, graph: Graph, kept: np.ndarray, calibration: Tensor, images: Tensor) -> Tensor:
    """Cut by torch-pruning, one pass in training mode with a cumulative average, then eval mode."""
    smaller = cut_by_torch_pruning(module, graph, kept)
    for layer in smaller.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.momentum = None
            layer.reset_running_stats()
    with torch.no_grad():
        smaller.train()(calibration)
        return smaller.eval()(images)


def random_mask(graph: Graph, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.integers((graph.sizes + 1) // 2, graph.sizes + 1)
    return top_mask(graph, counts, rng.random(graph.sizes.sum()))


def test_slices_run_as_the_cut_network_does(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    calibration, images = torch.randn(16, 3, 32, 32), torch.randn(5, 3, 32, 32)
    before = copy.deepcopy(network.state_dict())
    tensors = {name: value.data_ptr() for name, value in network.state_dict().items()}
    runner = SliceRunner(network, graph, calibration)
    # Twice the first plan: nothing of the second one may stay.
    for seed in (0, 1, 0):
        kept = random_mask(graph, seed)
        expected = by_hand(network, graph, kept, calibration, images)
        scale = expected.abs().max().item()
        torch.testing.assert_close(runner.logits(kept, images), expected, rtol=1e-4, atol=1e-4 * scale)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name: value.data_ptr() for name, value in after.items()} == tensors
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_chunks_do_not_matter(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    calibration, images = torch.randn(16, 3, 32, 32), torch.randn(7, 3, 32, 32)
    kept = random_mask(graph, 0)
    whole, parts = (SliceRunner(network, graph, calibration, chunk=n).logits(kept, images) for n in (100, 3))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


def test_networks_without_batch_norm() -> None:
    net = plain()
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    images, kept = torch.randn(5, 3, 8, 8), random_mask(graph, 0)
    given = SliceRunner(net, graph, images).logits(kept, images)
    torch.testing.assert_close(given, by_hand(net, graph, kept, images, images))


def test_batch_norm_without_statistics() -> None:
    net = nn.Sequential(plain()[0], nn.BatchNorm2d(8, track_running_stats=False), *plain()[1:]).eval()
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    images, kept = torch.randn(5, 3, 8, 8), random_mask(graph, 0)
    given = SliceRunner(net, graph, images).logits(kept, images)
    torch.testing.assert_close(given, by_hand(net, graph, kept, images, images))


def test_a_depthwise_layer_may_shrink_to_one_channel_and_grow_again() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), *plain()[3:5], nn.Linear(6, 4)).eval()
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    images, runner = torch.randn(5, 3, 8, 8), SliceRunner(net, graph, torch.randn(5, 3, 8, 8))
    for count in (1, 4):
        kept = np.arange(6) < count
        torch.testing.assert_close(runner.logits(kept, images), by_hand(net, graph, kept, images, images))


def test_autocast_returns_float32() -> None:
    net = plain()
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    images, kept = torch.randn(5, 3, 8, 8), random_mask(graph, 0)
    exact, rough = (
        SliceRunner(net, graph, images, dtype=dtype).logits(kept, images) for dtype in (None, torch.bfloat16)
    )
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.02


def test_recalibrating_a_network() -> None:
    """Mean and unbiased variance of the batch, whatever was there before."""
    net = nn.Sequential(nn.BatchNorm2d(3, momentum=0.25)).train()
    images = 2 * torch.randn(9, 3, 4, 4) + 1
    net(torch.randn(4, 3, 4, 4))
    recalibrate(net, images)
    values = images.transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[0].running_mean, values.mean(1))
    torch.testing.assert_close(net[0].running_var, values.var(1))
    assert (net[0].momentum, net[0].training, net.training) == (0.25, False, False)


def test_recalibration_that_fails_leaves_eval_mode() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(5, 1))
    with pytest.raises(RuntimeError):
        recalibrate(net, torch.randn(4, 3, 4, 4))
    assert (net[0].momentum, net[0].training) == (0.1, False)


class Runner:
    """Counts its calls; the logits depend on what is kept."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.calls = graph, 0

    def logits(self, kept: np.ndarray, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.tensor([[float(kept.sum()), 1.0], [0.0, 2.0]])


@pytest.fixture
def runner() -> Runner:
    return Runner(build_graph(plain(), torch.zeros(1, 3, 8, 8)))


def test_a_plan_is_run_once(runner: Runner) -> None:
    told: list[tuple[list[int], Evaluation]] = []
    evaluator = Evaluator(
        runner,  # type: ignore[arg-type]
        np.arange(14.0),
        torch.zeros(2, 3, 8, 8),
        torch.tensor([0, 1]),
        on_new=lambda counts, evaluation: told.append((counts.tolist(), evaluation)),
    )
    first = evaluator(np.array([3, 2]))
    assert evaluator(np.array([3.0, 2.0])) is first
    assert (runner.calls, told) == (1, [([3, 2], first)])
    evaluator(np.array([2, 3]))
    assert runner.calls == len(told) == 2


def test_what_is_known_is_not_run(runner: Runner) -> None:
    known = Evaluation(1.0, 0.5)
    evaluator = Evaluator(
        runner,  # type: ignore[arg-type]
        np.zeros(14),
        torch.zeros(2, 3, 8, 8),
        torch.tensor([0, 1]),
        {(3, 2): known},
        on_new=lambda *_: pytest.fail("nothing is new"),
    )
    assert evaluator(np.array([3, 2])) is known
    assert runner.calls == 0


def test_a_plan_of_several_criteria_is_evaluated_as_its_network_is_cut(network: nn.Module) -> None:
    """Channels of every group by the criterion that the plan names, ranked here, cut by another library."""
    graph, rng = build_graph(network, torch.zeros(1, 3, 32, 32)), np.random.default_rng(0)
    calibration, images = torch.randn(16, 3, 32, 32), torch.randn(40, 3, 32, 32)
    labels, scores = torch.arange(40) % 4, rng.random((3, graph.sizes.sum()))
    counts, numbers = (graph.sizes + 1) // 2, rng.integers(3, size=len(graph.sizes))
    kept = np.zeros(graph.sizes.sum(), dtype=bool)
    for group, count, number in zip(graph.groups, counts, numbers, strict=True):
        mine = scores[number, group.start : group.start + group.channels]
        kept[group.start + np.array(sorted(range(len(mine)), key=lambda place: -mine[place])[:count])] = True
    logits = by_hand(network, graph, kept, calibration, images)
    losses = [float(nn.functional.cross_entropy(logits * scale, labels)) for scale in torch.logspace(-3, 3, 4001)]
    evaluator = Evaluator(SliceRunner(network, graph, calibration), scores, images, labels)
    found = evaluator(np.concatenate([counts, numbers]))
    assert found.loss == pytest.approx(min(losses), rel=1e-3)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    # The same counts by the first criterion alone are another plan.
    assert evaluator(np.concatenate([counts, 0 * numbers])) != found
    assert len(evaluator.seen) == 2
