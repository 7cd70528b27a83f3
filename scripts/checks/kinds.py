"""Small networks of kinds that no zoo has and people's own repositories do; for scripts/checks/networks.py."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as masks


class Own(nn.Module):
    """Layers by name between an image and its classes, and what happens to the features of the first."""

    def __init__(self, classes: int, middle: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.middle = middle
        self.stem, self.norm = nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.last, self.head = nn.Conv2d(32, 40, 3, padding=1), nn.Linear(40, classes)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """(images, classes) logits."""
        y = self.middle(self, self.norm(self.stem(x)).relu())
        return self.head(self.last(y).relu().mean((2, 3)))


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """3 x 3, of the same size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def branches(num_classes: int) -> nn.Module:
    """Bright images go through other layers than dark ones."""

    def middle(net: Any, y: Tensor) -> Tensor:
        return net.bright(y).relu() if y.amax() > 1e6 else net.dark(y).relu()

    return Own(num_classes, middle, bright=conv(24, 32), dark=conv(24, 32))


def experts(num_classes: int) -> nn.Module:
    """One of several layers, by the number of the largest of some scores."""

    def middle(net: Any, y: Tensor) -> Tensor:
        return net.experts[int(net.choose(y.mean((0, 2, 3))).argmax())](net.body(y).relu()).relu()

    layers = nn.ModuleList(conv(28, 32) for _ in range(3))
    return Own(num_classes, middle, choose=nn.Linear(24, 3), body=conv(24, 28), experts=layers)


def prototypes(num_classes: int) -> nn.Module:
    """A layer's weight is used as numbers, too."""

    def middle(net: Any, y: Tensor) -> Tensor:
        y = net.one(y).relu() + net.two.weight.sum((0, 2, 3))[:, None, None]
        return net.two(net.mid(y).relu()).relu()

    return Own(num_classes, middle, one=conv(24, 28), mid=conv(28, 28), two=conv(28, 32))


def looked_up(num_classes: int) -> nn.Module:
    """The number of the largest channel looks up a row of a table."""

    def middle(net: Any, y: Tensor) -> Tensor:
        scores = net.scores(y)
        rows = net.table(scores.mean((2, 3)).argmax(1))
        return net.two(y + rows[:, :, None, None] + scores.amax(1, keepdim=True)).relu()

    return Own(num_classes, middle, scores=conv(24, 10), table=nn.Embedding(10, 24), two=conv(24, 32))


def memory(num_classes: int) -> nn.Module:
    """An LSTM over the rows of a feature map."""

    def middle(net: Any, y: Tensor) -> Tensor:
        states, _ = net.memory(net.one(y).relu().mean(3).transpose(1, 2))
        return net.two(states.transpose(1, 2)[..., None]).relu()

    return Own(num_classes, middle, one=conv(24, 16), memory=nn.LSTM(16, 20, batch_first=True), two=conv(20, 32))


def scripted(num_classes: int) -> nn.Module:
    """A part is scripted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(nn.Sequential(conv(24, 20), nn.ReLU(), conv(20, 28)))
    return Own(num_classes, lambda net, y: net.two(net.part(y)).relu(), part=part, two=conv(28, 32))


def masked(num_classes: int) -> nn.Module:
    """A weight has a mask of torch.nn.utils.prune."""
    net = Own(num_classes, lambda net, y: net.two(net.one(y).relu()).relu(), one=conv(24, 28), two=conv(28, 32))
    masks.l1_unstructured(net.one, "weight", 0.5)
    return net


def weight_norm(num_classes: int) -> nn.Module:
    """A weight is computed in a hook before every pass."""
    net = Own(num_classes, lambda net, y: net.two(net.one(y).relu()).relu(), one=conv(24, 28), two=conv(28, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(net.one)
    return net


def caching(num_classes: int) -> nn.Module:
    """It keeps its features, with their history."""

    def middle(net: Any, y: Tensor) -> Tensor:
        net.features = [net.one(y).relu()]
        return net.two(net.features[0]).relu()

    return Own(num_classes, middle, one=conv(24, 28), two=conv(28, 32))


class Norm(nn.Module):
    """A layer norm over channels that come first, as of ConvNeXt's authors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.normalized_shape = (channels,)

    def forward(self, x: Tensor) -> Tensor:
        """As `x`."""
        return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias).movedim(-1, 1)


def own_norm(num_classes: int) -> nn.Module:
    """A layer norm of one's own."""
    middle = lambda net, y: net.two(net.norm_of_mine(net.one(y)).relu()).relu()  # noqa: E731
    return Own(num_classes, middle, one=conv(24, 28), norm_of_mine=Norm(28), two=conv(28, 32))


def instance_norm(num_classes: int) -> nn.Module:
    """A norm without parameters."""
    middle = lambda net, y: net.two(net.plain(net.one(y)).relu()).relu()  # noqa: E731
    return Own(num_classes, middle, one=conv(24, 28), plain=nn.InstanceNorm2d(28), two=conv(28, 32))


def normalised(num_classes: int) -> nn.Module:
    """Features of length 1."""
    middle = lambda net, y: net.two(F.normalize(net.one(y).relu())).relu()  # noqa: E731
    return Own(num_classes, middle, one=conv(24, 28), two=conv(28, 32))


def recurrent_convolution(num_classes: int) -> nn.Module:
    """A state that starts from zeros."""

    def middle(net: Any, y: Tensor) -> Tensor:
        state = y.new_zeros(y.shape)
        for _ in range(2):
            state = torch.tanh(y + net.step(state))
        return net.two(state).relu()

    return Own(num_classes, middle, step=conv(24, 24), two=conv(24, 32))


def resized_positions(num_classes: int) -> nn.Module:
    """A learned map of positions that is resized to the image's."""

    def middle(net: Any, y: Tensor) -> Tensor:
        return net.two(y + F.interpolate(net.places, size=y.shape[2:], mode="bilinear")).relu()

    return Own(num_classes, middle, places=nn.Parameter(torch.randn(1, 24, 5, 5)), two=conv(24, 32))


def frozen(num_classes: int) -> nn.Module:
    """Its first layers are not to be trained."""
    net = Own(num_classes, lambda net, y: net.two(net.one(y).relu()).relu(), one=conv(24, 28), two=conv(28, 32))
    net.stem.requires_grad_(False)
    net.one.requires_grad_(False)
    return net
