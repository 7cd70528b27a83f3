"""Least squares against numpy, on columns that are gathered position by position."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.evaluation.sliced import recalibrate
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.methods.recovery.base import Repairs
from rlprune.models.registry import build_model
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph

IMAGES = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(4))
EXACT = "reconstruct:ridge=1e-12,rows=1000000"


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]


def two(*then: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), *then).eval()


def kept_of(network: nn.Module, *gone: int) -> tuple[Graph, np.ndarray]:
    graph = build_graph(network, torch.zeros(1, 3, 6, 6))
    kept = np.ones(int(graph.sizes.sum()), dtype=bool)
    kept[list(gone)] = False
    return graph, kept


def reads_of(module: nn.Module, name: str, images: Tensor = IMAGES) -> Tensor:
    """What a layer reads, and what it gives."""
    found: list[Tensor] = []
    hook = module.get_submodule(name).register_forward_hook(lambda _, inputs, output: found.extend((inputs[0], output)))
    with torch.no_grad():
        module(images)
    hook.remove()
    return found


def windows(values: np.ndarray, size: int, stride: int, pad: int, gap: int) -> np.ndarray:
    """(images, height, width, channels * size * size) what a convolution reads at every position of its output."""
    padded = np.pad(values, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    reach = gap * (size - 1) + 1
    places = range(0, padded.shape[2] - reach + 1, stride)
    rows = [
        [padded[:, :, y : y + reach : gap, x : x + reach : gap].reshape(len(values), -1) for x in places]
        for y in places
    ]
    return np.array(rows).transpose(2, 0, 1, 3)


@pytest.mark.parametrize(("stride", "pad", "gap"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
def test_a_convolution_is_fitted_as_numpy_does(stride: int, pad: int, gap: int) -> None:
    network = two(nn.Conv2d(5, 4, 3, stride=stride, padding=pad, dilation=gap), nn.ReLU(), *head(4))
    graph, kept = kept_of(network, 1, 4)
    smaller = Repairs(EXACT, network, graph, IMAGES).cut(kept)
    _, wanted = reads_of(network, "2")
    read, _ = reads_of(prune(network, graph, kept).eval(), "2")
    columns = windows(read.double().numpy(), 3, stride, pad, gap)
    made = wanted.double().permute(0, 2, 3, 1).numpy() - network[2].bias.detach().double().numpy()
    expected, *_ = np.linalg.lstsq(columns.reshape(-1, 27), made.reshape(-1, 4), rcond=None)
    np.testing.assert_allclose(smaller[2].weight.detach().flatten(1).T, expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(smaller[2].bias, network[2].bias)


def test_cut_outputs_are_not_fitted_and_the_next_layer_sees_what_is_repaired() -> None:
    network = two(nn.Conv2d(5, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU(), *head(6))
    graph, kept = kept_of(network, 1, 5 + 2)
    smaller = Repairs(EXACT, network, graph, IMAGES).cut(kept)
    for name, made in (("2", [0, 1, 3]), ("4", list(range(6)))):
        (_, wanted), (read, _) = reads_of(network, name), reads_of(smaller, name)
        bias = network.get_submodule(name).bias.detach()
        target = (wanted - bias[:, None, None])[:, made].double().transpose(0, 1).flatten(1).T.numpy()
        expected, *_ = np.linalg.lstsq(read.double().transpose(0, 1).flatten(1).T.numpy(), target, rcond=None)
        np.testing.assert_allclose(
            smaller.get_submodule(name).weight.detach().flatten(1).T, expected, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize(
    "then",
    [
        lambda: nn.Sequential(nn.Conv2d(5, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU(), *head(4)),
        lambda: nn.Sequential(nn.Conv2d(5, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4), *head(4)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(80, 4)),
        lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(5, 4, 3, padding=2, stride=2), nn.Flatten(), nn.Linear(36, 4)),
    ],
    ids=["reflect", "same", "flattened", "one-dimensional"],
)
def test_a_channel_that_others_make_up_for_is_not_missed(then: Callable[[], nn.Module]) -> None:
    """The last one is the sum of two others and of half a third."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Identity(), then()).eval()
    with torch.no_grad():
        for tensor in (network[0].weight, network[0].bias):
            tensor[4] = tensor[0] + tensor[1] + 0.5 * tensor[2]
    graph, kept = kept_of(network, 4)
    with torch.no_grad():
        # More positions than weights: 64 of them read a flattened map.
        images = torch.randn(100, 3, 6, 6)
        smaller = Repairs(EXACT, network, graph, images).cut(kept)
        torch.testing.assert_close(smaller(images), network(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("ridge", [1e-6, 1])
@pytest.mark.parametrize("name", ["vgg11", "resnet20", "mobilenetv2"])
def test_no_layer_is_worse_than_unrepaired(name: str, ridge: float) -> None:
    """Of a network that is repaired as far as that layer, of which the weights are those of the cut one again."""
    torch.manual_seed(1)
    network = build_model(name, classes=4, image_size=32, args={"width": 0.15})
    images = torch.randn(12, 3, 32, 32)
    with torch.no_grad():
        network(images)
    graph = build_graph(network.eval(), torch.zeros(1, 3, 32, 32))
    kept = top_mask(graph, (graph.sizes + 1) // 2, np.random.default_rng(0).random(int(graph.sizes.sum())))
    smaller = Repairs(f"reconstruct:ridge={ridge},rows=1000000", network, graph, images).cut(kept)
    plain, changed = dict(prune(network, graph, kept).named_modules()), 0
    for layer, part in smaller.named_modules():
        if not isinstance(part, (nn.Conv2d, nn.Linear)) or torch.equal(part.weight, plain[layer].weight):
            continue
        axes = {axis.side: axis.slots for axis in graph.axes if axis.layer == layer}
        made = np.append(kept, True)[axes["out"]] if "out" in axes else slice(None)
        wanted = reads_of(network, layer, images)[1].movedim(1, 0)[made]
        read, given = reads_of(smaller, layer, images)
        with torch.no_grad():
            before = (plain[layer](read).movedim(1, 0) - wanted).square().sum().item()
        after = (given.movedim(1, 0) - wanted).square().sum().item()
        assert after <= before * (1 + 1e-5), layer
        changed += 1
    assert changed >= 5


def test_fewer_positions_than_there_are() -> None:
    """An image in three, so many of its 16 positions each, is enough where the rest is alike."""
    network = two(nn.Conv2d(5, 4, 1), nn.ReLU(), *head(4))
    with torch.no_grad():
        network[0].weight[4], network[0].bias[4] = network[0].weight[2], network[0].bias[2]
    graph, kept = kept_of(network, 4)
    with torch.no_grad():
        some = Repairs("reconstruct:ridge=1e-9,rows=120", network, graph, IMAGES).cut(kept)
        torch.testing.assert_close(some(IMAGES), network(IMAGES), rtol=1e-3, atol=1e-3)


def test_with_batch_norm_behind_the_pass_measures_it_too() -> None:
    """What later layers read when they are fitted is what they read in the end."""
    norm = nn.BatchNorm2d(4)
    network = two(nn.Conv2d(5, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU(), *head(6))
    with torch.no_grad():
        norm.running_mean.fill_(0.3)
    graph, kept = kept_of(network, 0, 5 + 1)
    smaller = Repairs(f"bn,{EXACT}", network, graph, IMAGES).cut(kept)
    before = {name: tensor.clone() for name, tensor in smaller.state_dict().items()}
    recalibrate(smaller, IMAGES)
    for name, tensor in smaller.named_parameters():
        assert torch.equal(tensor, before[name])
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(smaller[3], name), before[f"3.{name}"])
    (_, wanted), (read, _) = reads_of(network, "5"), reads_of(smaller, "5")
    bias = network[5].bias.detach()[:, None, None]
    rows = read.double().transpose(0, 1).flatten(1).T.numpy()
    expected, *_ = np.linalg.lstsq(rows, (wanted - bias).double().transpose(0, 1).flatten(1).T.numpy(), rcond=None)
    np.testing.assert_allclose(smaller[5].weight.detach().flatten(1).T, expected, rtol=1e-3, atol=1e-4)


def test_grouped_layers_are_left_alone() -> None:
    network = two(nn.Conv2d(5, 5, 3, groups=5), nn.ReLU(), nn.Conv2d(5, 4, 1), *head(4))
    graph, kept = kept_of(network, 2)
    smaller, plain = Repairs(EXACT, network, graph, IMAGES).cut(kept), prune(network, graph, kept)
    assert torch.equal(smaller[2].weight, plain[2].weight)
    assert not torch.equal(smaller[4].weight, plain[4].weight)


def test_channels_that_are_never_there() -> None:
    """All that is left to read is 0, of which nothing can be made."""
    network = two(nn.Conv2d(5, 4, 1), nn.ReLU(), *head(4))
    with torch.no_grad():
        network[0].weight[:4], network[0].bias[:4] = 0, -1
    graph, kept = kept_of(network, 4)
    smaller, plain = Repairs("reconstruct", network, graph, IMAGES).cut(kept), prune(network, graph, kept)
    torch.testing.assert_close(smaller[2].weight, plain[2].weight)


def test_a_penalty_that_rounding_swallows() -> None:
    """Four channels are 1 everywhere: XᵀX is 400 everywhere, of 10 positions in each of 40 images."""
    network = two(nn.Conv2d(5, 4, 1), nn.ReLU(), *head(4))
    with torch.no_grad():
        network[0].weight[:], network[0].bias[:] = 0, 1
    graph, kept = kept_of(network, 4)
    with pytest.raises(UserError, match="is too small for what the layers read"):
        Repairs("reconstruct:ridge=1e-300,rows=400", network, graph, IMAGES).cut(kept)
    smaller = Repairs("reconstruct:rows=400", network, graph, IMAGES).cut(kept)
    torch.testing.assert_close(smaller(IMAGES), network(IMAGES), rtol=0.02, atol=0.02)


class Branching(nn.Module):
    """A layer runs where images are bright."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.extra = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 1)
        self.two, self.last = nn.Conv2d(5, 5, 1), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        given = self.one(images).relu()
        if images.mean() > 0.5:
            given = self.extra(given).relu()
        return self.last(self.two(given).relu().mean((2, 3)))


@pytest.mark.parametrize("bright", [40, 58])
@pytest.mark.parametrize("repair", ["bias", "reconstruct"])
def test_a_network_that_branches(repair: str, bright: int) -> None:
    """The dense network takes one way or another a chunk, of all images together, the last eight apart."""
    images = torch.zeros(58, 3, 6, 6)
    images[:bright] = 1 + torch.rand(bright, 3, 6, 6)
    network = Branching().eval()
    graph = build_graph(network, images[:1], more=[images[:1], images[-1:]])
    kept = np.ones(int(graph.sizes.sum()), dtype=bool)
    kept[[group.start for group in graph.groups]] = False
    smaller, plain = Repairs(repair, network, graph, images).cut(kept), prune(network, graph, kept)
    assert torch.isfinite(smaller(images)).all()
    same = [torch.equal(getattr(smaller.extra, name), getattr(plain.extra, name)) for name in ("weight", "bias")]
    assert all(same) == (bright == 40)


@pytest.mark.parametrize("settings", ["rows=0", "ridge=0", "ridge=nan"])
def test_settings_that_cannot_be(settings: str) -> None:
    with pytest.raises(UserError, match="expected at least 1 and more than 0"):
        Repairs(f"reconstruct:{settings}", nn.Identity(), kept_of(two(*head(5)))[0], IMAGES)
