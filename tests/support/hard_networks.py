"""Small networks that are hard to cut, and which channels of each live and die together, derived by hand.

The layers of most are `one`, something between, `two` and `last`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

IMAGE = torch.zeros(1, 3, 8, 8)
VECTOR = torch.zeros(1, 5)
Indices = dict[str, tuple[np.ndarray, ...]]


@dataclass(frozen=True, eq=False)
class Case:
    """A network and what is known of it.

    Attributes:
        name: of the test.
        make: the network; where `by_hand` is given it takes the number of units of every group by name.
        groups: group -> units, exactly; None where more than one answer is right.
        refused: layers whose channels must never be cut, among others.
        example: one input: a tensor, a tuple of positional or a dict of keyword inputs.
        by_hand: kept units of every group -> per layer (or raw parameter) the kept indices of its dimensions. For
            networks that take statistics over channels (or products of channels), where what stays depends on what
            goes, and disconnecting is no oracle.
    """

    name: str
    make: Callable[..., nn.Module]
    groups: Mapping[str, int] | None
    refused: frozenset[str] = frozenset()
    example: Any = IMAGE
    by_hand: Callable[[Mapping[str, np.ndarray]], Indices] | None = None


class Net(nn.Module):
    """Layers, parameters and constants by name, and what happens to the inputs."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.run(self, *inputs, **named)


def conv(inputs: int, outputs: int, kernel: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / max(1, int(np.prod(shape[1:]))) ** 0.5)


def between(middle: Callable[[Any, Tensor], Tensor], into: int = 8, out: int = 8, then: int = 6, **parts: Any) -> Net:
    """Two convolutions, `one` with ``out`` channels and `two` that reads ``into``, and something between them."""
    return Net(
        lambda net, x: net.last(net.two(middle(net, net.one(x))).relu().mean((2, 3))),
        one=conv(3, out),
        two=conv(into, then),
        last=nn.Linear(then, 3),
        **parts,
    )


def with_buffer(persistent: bool) -> Net:
    net = between(lambda net, y: y * net.scale)
    net.register_buffer("scale", torch.rand(1, 8, 1, 1) + 0.5, persistent=persistent)
    return net


def in_place(net: Any, y: Tensor) -> Tensor:
    y[:, :, 0] = 0.5
    z = net.branch(y).mul_(2).add_(y).relu_()
    return torch.where(z > 0.1, z, torch.zeros_like(z)).clamp(min=0.2, max=3)


def resized(_: Any, y: Tensor) -> Tensor:
    small = F.max_pool2d(y, 2)
    up = F.interpolate(small, scale_factor=2, mode="bilinear") + F.interpolate(small, size=(8, 8), mode="nearest")
    return F.pad(up + F.avg_pool2d(y, 3, 1, 1) + F.adaptive_max_pool2d(y, 4).mean((2, 3), keepdim=True), (1, 1, 0, 0))


def channels_last(net: Any, y: Tensor) -> Tensor:
    y = y.permute(0, 2, 3, 1).contiguous()
    return (y * net.scale + net.shift.view(-1)).permute(0, 3, 1, 2)


FREE: dict[str, Callable[[], Net]] = {
    "flip": lambda: between(lambda net, y: y.flip(1)),
    "repeat": lambda: between(lambda net, y: y.repeat(1, 2, 1, 1), into=16),
    "repeat-interleave": lambda: between(lambda net, y: y.repeat_interleave(2, 1), into=16),
    "join-with-self": lambda: between(lambda net, y: torch.cat([y, y], 1), into=16),
    "join-with-flipped-self": lambda: between(lambda net, y: torch.cat([y, y.flip(1)], 1), into=16),
    "join-with-input-of-ones": lambda: between(lambda net, y: torch.cat([y.new_ones(len(y), 2, 8, 8), y], 1), into=10),
    "pixel-unshuffle": lambda: between(lambda net, y: F.pixel_unshuffle(y, 2), into=32),
    "prelu": lambda: between(lambda net, y: net.act(y), act=nn.PReLU(8)),
    "instance-norm": lambda: between(lambda net, y: net.norm(y), norm=nn.InstanceNorm2d(8, affine=True)),
    "instance-norm-plain": lambda: between(lambda net, y: net.norm(y), norm=nn.InstanceNorm2d(8)),
    "resized": lambda: between(resized),
    "reflect-padding": lambda: between(lambda net, y: F.pad(y, (1, 2, 1, 1), "reflect")),
    "in-place": lambda: between(in_place, branch=conv(8, 8)),
    "layer-scale": lambda: between(lambda net, y: y + net.gain * y.tanh(), gain=weight(8, 1, 1)),
    "parameter-viewed": lambda: between(lambda net, y: y * net.gain.view(1, -1, 1, 1), gain=weight(8)),
    "parameter-per-position": lambda: between(lambda net, y: y + net.gain, gain=weight(1, 8, 8, 8)),
    "one-number": lambda: between(lambda net, y: y * net.gain + torch.tensor(0.5), gain=weight(1)),
    "buffer": lambda: with_buffer(persistent=True),
    "buffer-not-saved": lambda: with_buffer(persistent=False),
    "channels-last": lambda: between(channels_last, scale=weight(8), shift=weight(8, 1)),
    "depthwise-of-two": lambda: between(lambda net, y: net.depth(y), 16, depth=conv(8, 16, groups=8)),
    "depthwise-function": lambda: between(
        lambda net, y: F.conv2d(y, net.kernel, padding=1, groups=y.shape[1]), kernel=weight(8, 1, 3, 3)
    ),
    "called-twice": lambda: between(lambda net, y: net.again(net.again(y).relu()), again=conv(8, 8)),
}
"""Every channel of `one` can go by itself."""


def halves(net: Any, y: Tensor) -> Tensor:
    first, second = y.chunk(2, 1)
    return net.left(first).relu() + net.right(second).tanh()


def swapped(_: Any, y: Tensor) -> Tensor:
    first, second = y.chunk(2, 1)
    return torch.cat([second, first], 1)


def adaptive_slices(_: Any, y: Tensor) -> Tensor:
    half = y.shape[1] // 2
    return y[:, :half] * y[:, half:].sigmoid()


def shuffle(_: Any, y: Tensor) -> Tensor:
    images, channels, height, width = y.shape
    return y.view(images, 2, channels // 2, height, width).transpose(1, 2).reshape(images, channels, height, width)


def maxout(_: Any, y: Tensor) -> Tensor:
    return y.view(len(y), -1, 2, *y.shape[2:]).amax(2)


PAIRED: dict[str, Callable[[], Net]] = {
    "glu": lambda: between(lambda net, y: F.glu(y, 1), into=4),
    "swapped-halves": lambda: between(swapped),
    "adaptive-slices": lambda: between(adaptive_slices, into=4),
    "shuffle": lambda: between(shuffle),
    "flipped-sum": lambda: between(lambda net, y: y + y.flip(1)),
    "maxout": lambda: between(maxout, into=4),
    # 4 conv groups of 2 inputs are as many as or more than the inputs of one: whole conv groups go.
    "grouped": lambda: between(lambda net, y: net.grouped(y), 16, grouped=conv(8, 16, groups=4)),
}
"""Channels of `one` can go two at a time."""


def written_split(_: Any, y: Tensor) -> Tensor:
    first, second = y.split([3, 5], 1)
    return torch.cat([second, first], 1)


def written_size(_: Any, y: Tensor) -> Tensor:
    first, second = y.split(4, 1)
    return torch.cat([second, first], 1)


def written_in_place(_: Any, y: Tensor) -> Tensor:
    y[:, :3] = 0.5
    y[:, 5:].relu_()
    return y


def efficient_channel_attention(net: Any, y: Tensor) -> Tensor:
    """ECA-Net (2020, arXiv 1910.03151): a convolution along the channels."""
    return y * net.along(y.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]


def gram(_: Any, y: Tensor) -> Tensor:
    """Bilinear pooling: one number per pair of channels."""
    flat = y.flatten(2)
    return (flat @ flat.transpose(1, 2)).flatten(1)[:, :, None, None]


REFUSED: dict[str, Callable[[], Net]] = {
    "written-slice": lambda: between(lambda net, y: y[:, :4], into=4),
    "written-slice-in-place": lambda: between(written_in_place),
    "written-split": lambda: between(written_split),
    "written-size": lambda: between(written_size),
    "written-view": lambda: between(lambda net, y: y.view(-1, 8, 8, 8)),
    "written-view-of-parameter": lambda: between(lambda net, y: y * net.gain.view(1, 8, 1, 1), gain=weight(8)),
    "written-groups": lambda: between(
        lambda net, y: F.conv2d(y, net.kernel, padding=1, groups=8), kernel=weight(8, 1, 3, 3)
    ),
    "written-order": lambda: between(lambda net, y: y[:, [3, 1, 2, 0, 7, 6, 5, 4]]),
    # The last channel that stays comes first, which need not be the last one of all.
    "roll-6": lambda: between(lambda net, y: y.roll(1, 1), into=6, out=6),
    "roll-7": lambda: between(lambda net, y: y.roll(1, 1), into=7, out=7),
    "roll-8": lambda: between(lambda net, y: y.roll(2, 1)),
    "constant": lambda: between(lambda net, y: y * net.scale, scale=torch.rand(1, 8, 1, 1) + 0.5),
    "along-channels": lambda: between(efficient_channel_attention, along=nn.Conv1d(1, 1, 3, padding=1)),
    "local-response-norm": lambda: between(lambda net, y: net.norm(y), norm=nn.LocalResponseNorm(3, 0.5)),
    "sorted": lambda: between(lambda net, y: y.sort(1).values),
    "gram": lambda: between(gram, into=64),
    # Its weight's first dimension is the input's, and its second one only a part of the output's.
    "grouped-transposed": lambda: between(lambda net, y: net.up(y), 12, up=nn.ConvTranspose2d(8, 12, 2, 2, groups=4)),
    "depthwise-transposed": lambda: between(lambda net, y: net.up(y), up=nn.ConvTranspose2d(8, 8, 2, 2, groups=8)),
    "added-to-input": lambda: between(lambda net, y: y + IMAGE.new_ones(8, 1, 1).cumsum(0)),
    "single-channel": lambda: between(lambda net, y: y, into=1, out=1),
}
"""No channel of `one` can go."""


STATISTICS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "softmax": lambda net, y: y.softmax(1),
    "divided-by-sum": lambda net, y: y / y.square().sum(1, keepdim=True),
    "cumulative": lambda net, y: y.cumsum(1),
    "number-of-channels": lambda net, y: y / y.shape[1],
    "normalised": lambda net, y: F.normalize(y),
}
"""Every channel of `one` can go by itself, but is not missing only where it is read."""


class Kernel(nn.Module):
    """A convolution without a layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel, self.shift = weight(outputs, inputs, 3, 3), weight(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.shift, padding=1)


def functional() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = F.batch_norm(F.conv2d(x, net.first, padding=1), net.mean, net.variance, net.gain, net.shift)
        y = torch.relu(F.conv2d(torch.relu(y), net.second, net.bias, stride=2))
        return F.linear(y.mean((2, 3)), net.third)

    raw = {"first": weight(8, 3, 3, 3), "second": weight(6, 8, 3, 3), "bias": weight(6), "third": weight(3, 6)}
    net = Net(forward, **raw, gain=weight(8), shift=weight(8))
    net.register_buffer("mean", torch.rand(8))
    net.register_buffer("variance", torch.rand(8) + 0.5)
    return net


def concat_of_concat() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        inner = torch.cat([net.a(x), net.b(x).relu()], 1)
        return net.last(net.join(net.norm(torch.cat([inner, net.c(x)], 1)).relu()).mean((2, 3)))

    return Net(
        forward,
        a=conv(3, 4),
        b=conv(3, 5),
        c=conv(3, 6),
        norm=nn.BatchNorm2d(15),
        join=conv(15, 7),
        last=nn.Linear(7, 3),
    )


def dense_block() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        for layer in (net.a, net.b, net.c):
            x = torch.cat([x, layer(x).relu()], 1)
        return net.last(x.mean((2, 3)))

    return Net(forward, a=conv(3, 4), b=conv(7, 5), c=conv(12, 6), last=nn.Linear(18, 3))


def shared_by_branches() -> Net:
    """What one layer reads in two places are the same channels."""

    def forward(net: Any, x: Tensor) -> Tensor:
        joined = torch.cat([net.shared(net.one(x)), net.shared(net.other(x)).tanh()], 1)
        return net.last(joined.relu().mean((2, 3)))

    return Net(forward, one=conv(3, 8), other=conv(3, 8, 1), shared=conv(8, 5), last=nn.Linear(10, 3))


def squeeze_excite() -> Net:
    return between(
        lambda net, y: y * net.excite(net.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid(),
        squeeze=conv(8, 4, 1),
        excite=conv(4, 8, 1),
    )


def block_attention(one: int = 8, two: int = 6) -> Net:
    """CBAM (2018, arXiv 1807.06521): where to look follows from the mean and the maximum over the channels."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x)
        seen = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
        return net.last(net.two(y * net.attention(seen).sigmoid()).mean((2, 3)))

    return Net(forward, one=conv(3, one), attention=conv(2, 1), two=conv(one, two), last=nn.Linear(two, 3))


def unet() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        high = net.high(x).relu()
        return net.last(net.join(torch.cat([high, net.up(net.low(high).relu())], 1)).relu())

    return Net(
        forward,
        high=conv(3, 4),
        low=conv(4, 6, stride=2),
        up=nn.ConvTranspose2d(6, 5, 2, stride=2),
        join=conv(9, 7),
        last=conv(7, 2, 1),
    )


def flattened(size: int, channels_last: bool = False) -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(net.one(x).relu(), size)
        y = y.permute(0, 2, 3, 1) if channels_last else y
        return net.last(net.norm(net.two(y.flatten(1))).tanh())

    return Net(forward, one=conv(3, 6), two=nn.Linear(6 * size**2, 7), norm=nn.BatchNorm1d(7), last=nn.Linear(7, 3))


def norm_of_flattened() -> Net:
    return Net(
        lambda net, x: net.last(net.norm(net.one(x).flatten(1)).relu()),
        one=conv(3, 6, stride=4),
        norm=nn.BatchNorm1d(24),
        last=nn.Linear(24, 3),
    )


def written_flatten() -> Net:
    """The view of LeNet tutorials: with fewer channels there would be fewer images."""
    return Net(
        lambda net, x: net.last(net.two(net.one(x).relu()).view(-1, 24)),
        one=conv(3, 8),
        two=conv(8, 6, stride=4),
        last=nn.Linear(24, 3),
    )


def generator(channels: int) -> Net:
    def forward(net: Any, z: Tensor) -> Tensor:
        return net.last(net.up(net.project(z).view(len(z), channels, 2, 2)).relu()).tanh()

    return Net(
        forward,
        project=nn.Linear(5, 24),
        up=nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1),
        last=nn.ConvTranspose2d(5, 3, 4, stride=2, padding=1),
    )


def only_in_training() -> Net:
    """As in GoogLeNet, there is a second head while training, and a layer that nobody calls."""

    def forward(net: Any, x: Tensor) -> Any:
        y = net.one(x).relu()
        logits = net.last(net.two(y).mean((2, 3)))
        return (logits, net.aux(y.mean((2, 3)))) if net.training else logits

    return Net(forward, one=conv(3, 8), two=conv(8, 6), last=nn.Linear(6, 3), aux=nn.Linear(8, 3), spare=conv(5, 7))


def written_in_training() -> Net:
    """Only the head that is left out later has a number written into it."""

    def forward(net: Any, x: Tensor) -> Any:
        y = net.one(x).relu()
        logits = net.last(net.two(y).mean((2, 3)))
        return (logits, net.aux(y[:, :4].mean((2, 3)))) if net.training else logits

    return Net(forward, one=conv(3, 8), two=conv(8, 6), last=nn.Linear(6, 3), aux=nn.Linear(4, 3))


def frames() -> Net:
    """The four frames of a film are as many images to its convolutions."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.two(net.one(x.flatten(0, 1)).relu()).mean((2, 3))
        return net.last(y.view(len(x), 4, -1).mean(1))

    return Net(forward, one=conv(3, 8), two=conv(8, 6), last=nn.Linear(6, 3))


def two_inputs() -> Net:
    def forward(net: Any, image: Tensor, vector: Tensor) -> Tensor:
        joined = torch.cat([net.one(image).mean((2, 3)), net.two(vector).tanh()], 1)
        return net.last(joined)

    return Net(forward, one=conv(3, 8), two=nn.Linear(5, 6), last=nn.Linear(14, 3))


def modulated() -> Net:
    """FiLM (2017, arXiv 1709.07871): a vector scales and shifts the channels."""

    def forward(net: Any, image: Tensor, vector: Tensor) -> Tensor:
        scale, shift = net.film(vector)[:, :, None, None].chunk(2, 1)
        return net.last((net.one(image) * scale + shift).relu().mean((2, 3)))

    return Net(forward, film=nn.Linear(5, 16), one=conv(3, 8), last=nn.Linear(8, 3))


def many_outputs() -> Net:
    def forward(net: Any, x: Tensor) -> Any:
        y = net.one(x).relu()
        return {"class": net.last(net.two(y).mean((2, 3))), "more": [net.box(y), (x.mean(1), 1.5)]}

    return Net(forward, one=conv(3, 8), two=conv(8, 6), box=conv(8, 4, 1), last=nn.Linear(6, 3))


def features_too() -> Net:
    def forward(net: Any, x: Tensor) -> Any:
        y = net.two(net.one(x).relu())
        return net.last(y.mean((2, 3))), y

    return Net(forward, one=conv(3, 8), two=conv(8, 6), last=nn.Linear(6, 3))


def parametrised(wrap: Callable[[nn.Module], nn.Module]) -> Net:
    """What goes into the layer whose weight is computed, and what comes out of it, stays whole."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(net.four(net.three(net.two(net.one(x)).relu())).mean((2, 3)))

    return Net(forward, one=conv(3, 8), two=wrap(conv(8, 7)), three=conv(7, 6), four=conv(6, 5), last=nn.Linear(5, 3))


class Standardised(nn.Conv2d):
    """Weight standardisation (2019, arXiv 1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        spread, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (spread + 1e-5), self.bias)


def zero_padded_shortcut() -> Net:
    """Option A of ResNet (2015, arXiv 1512.03385): of `two`, two channels in front and behind meet zeros."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        short = F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return net.last((short + net.two(net.mid(y).relu())).relu().mean((2, 3)))

    return Net(forward, one=conv(3, 4), mid=conv(4, 5, stride=2), two=conv(5, 8), last=nn.Linear(8, 3))


def tied_weights() -> Net:
    """Two layers with one weight are one layer that is called twice."""
    a, b = nn.Linear(6, 6), nn.Linear(6, 6)
    b.weight = a.weight
    return Net(
        lambda net, z: net.last(net.b(net.a(net.one(z).tanh()).tanh()).tanh()),
        one=nn.Linear(5, 6),
        a=a,
        b=b,
        last=nn.Linear(6, 3),
    )


def prototypes() -> Net:
    """The classifier's weight is used as numbers, too: their mean goes along with its inputs."""
    return Net(
        lambda net, z: net.protos(net.two(net.mid(net.one(z).tanh() + net.protos.weight.mean(0)).tanh()).tanh()),
        one=nn.Linear(5, 6),
        mid=nn.Linear(6, 6),
        two=nn.Linear(6, 6),
        protos=nn.Linear(6, 3, bias=False),
    )


def label_embedding() -> Net:
    """The rows that stand for the classes at the input are the classifier's weight."""

    def forward(net: Any, z: Tensor, label: Tensor) -> Tensor:
        y = (net.one(z) + net.embed(label)).tanh()
        return F.linear(net.two(net.mid(y).tanh()).tanh(), net.embed.weight)

    return Net(forward, one=nn.Linear(5, 6), embed=nn.Embedding(10, 6), mid=nn.Linear(6, 6), two=nn.Linear(6, 6))


def outputs_as_numbers() -> Net:
    """The sums of a weight's rows go along with its outputs."""
    return Net(
        lambda net, z: net.last(net.two(net.one(z).tanh()).tanh() * net.two.weight.sum(1)),
        one=nn.Linear(5, 6),
        two=nn.Linear(6, 7),
        last=nn.Linear(7, 3),
    )


def both_sides_as_numbers() -> Net:
    """A weight whose numbers meet channels along both sides cannot be cut."""

    def forward(net: Any, z: Tensor) -> Tensor:
        y = net.one(z).tanh()
        rows, columns = net.two.weight.mean(1), net.two.weight.mean(0)
        return net.last(net.three(net.two(y).tanh() * rows + net.side(y).tanh() * columns).tanh())

    layers = {name: nn.Linear(6, 6) for name in ("two", "side", "three")}
    return Net(forward, one=nn.Linear(5, 6), **layers, last=nn.Linear(6, 3))


def chosen_rows() -> Net:
    """Which channel is the largest says which row is looked up."""

    def forward(net: Any, z: Tensor) -> Tensor:
        scores = net.two(net.one(z).tanh())
        return net.last(net.embed(scores.argmax(1)).tanh()) + scores.amax(1, keepdim=True)

    return Net(
        forward,
        one=nn.Linear(5, 6),
        two=nn.Linear(6, 10),
        embed=nn.Embedding(10, 8),
        last=nn.Linear(8, 3),
    )


def chosen_class(choose: Callable[[Tensor], Any]) -> Net:
    """What is returned are numbers of classes, and how sure of them it is."""

    def forward(net: Any, x: Tensor) -> Any:
        scores = net.two(net.one(x).relu()).mean((2, 3))
        return choose(scores), scores.amax(1)

    return Net(forward, one=conv(3, 8), two=conv(8, 6))


CHOICES: Mapping[str, Callable[[Tensor], Any]] = {
    "argmax": lambda y: y.argmax(1),
    "max-and-where": lambda y: y.softmax(1).max(1),
    "top-two": lambda y: y.topk(2, 1).indices,
    "ranking": lambda y: y.argsort(1),
    "one-hot": lambda y: F.one_hot(y.argmax(1), 6),
}


def state_from_zeros() -> Net:
    """A recurrent convolution, whose state starts from zeros as large as a feature map."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x)
        state = y.new_zeros(y.shape)
        for _ in range(3):
            state = torch.tanh(y + net.two(state))
        return net.last(state.mean((2, 3)))

    return Net(forward, one=conv(3, 8), two=conv(8, 8), last=nn.Linear(8, 3))


def resized_positions() -> Net:
    """A learned embedding of positions is resized to the number of patches."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x)
        places = net.places.reshape(1, 3, 3, -1).permute(0, 3, 1, 2)
        places = F.interpolate(places, size=y.shape[2:], mode="bicubic").flatten(2).transpose(1, 2)
        y = y.flatten(2).transpose(1, 2) + places
        return net.last((y + net.two(net.expand(y).tanh())).mean(1))

    return Net(
        forward,
        one=nn.Conv2d(3, 8, 4, stride=4),
        places=weight(1, 9, 8),
        expand=nn.Linear(8, 10),
        two=nn.Linear(10, 8),
        last=nn.Linear(8, 3),
    )


def tied_transposed() -> Net:
    """The decoder is the encoder's weight, transposed: a weight that is computed."""

    def forward(net: Any, z: Tensor) -> Tensor:
        code = net.two(net.one(z).tanh()).tanh()
        return net.last(net.three(F.linear(code, net.two.weight.t()).tanh()).tanh())

    return Net(forward, one=nn.Linear(5, 6), two=nn.Linear(6, 4), three=nn.Linear(6, 5), last=nn.Linear(5, 3))


def convnext(one: int = 8, expand: int = 16) -> Net:
    """A block of ConvNeXt (2022, arXiv 2201.03545)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x)
        z = net.contract(F.gelu(net.expand(net.norm(net.depth(y).permute(0, 2, 3, 1)))))
        return net.last((y + (net.gain * z).permute(0, 3, 1, 2)).mean((2, 3)))

    return Net(
        forward,
        one=conv(3, one),
        depth=conv(one, one, 5, groups=one),
        norm=nn.LayerNorm(one),
        expand=nn.Linear(one, expand),
        contract=nn.Linear(expand, one),
        gain=weight(one),
        last=nn.Linear(one, 3),
    )


def convnext_by_hand(kept: Mapping[str, np.ndarray]) -> Indices:
    one, expand = kept["one"], kept["expand"]
    everything = np.arange(3)
    return {
        "one": (one,),
        "depth": (one,),
        "norm": (one,),
        "expand": (expand, one),
        "contract": (one, expand),
        "gain": (one,),
        "last": (everything, one),
    }


def plain(dimensions: int) -> Net:
    """Convolutions and norms over 1 or 3 dimensions."""
    layer, norm = (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv3d, nn.BatchNorm3d)

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(net.two(net.norm(net.one(x)).relu()).flatten(2).mean(2))

    return Net(forward, one=layer(3, 8, 3), norm=norm(8), two=layer(8, 6, 3, padding=1), last=nn.Linear(6, 3))


def tokens(net: Any, x: Tensor) -> Tensor:
    """Four patches of 4 x 4 pixels."""
    return net.one(x).flatten(2).transpose(1, 2)


def product_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (0.5 * q @ k.transpose(-2, -1)).softmax(-1) @ v


def attention(attend: Callable[..., Tensor], one: int = 8, q: int = 4, v: int = 4, expand: int = 10) -> Net:
    """A transformer's block with two heads; the heads' number is written, their width is not."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = tokens(net, x)
        images, count, _ = y.shape
        heads = [layer(net.norm(y)).view(images, count, 2, -1).transpose(1, 2) for layer in (net.q, net.k, net.v)]
        y = y + net.project(attend(*heads).transpose(1, 2).reshape(images, count, -1))
        return net.last((y + net.contract(F.gelu(net.expand(y)))).mean(1))

    return Net(
        forward,
        one=nn.Conv2d(3, one, 4, stride=4),
        norm=nn.LayerNorm(one),
        q=nn.Linear(one, 2 * q),
        k=nn.Linear(one, 2 * q),
        v=nn.Linear(one, 2 * v),
        project=nn.Linear(2 * v, one),
        expand=nn.Linear(one, expand),
        contract=nn.Linear(expand, one),
        last=nn.Linear(one, 3),
    )


def attention_by_hand(kept: Mapping[str, np.ndarray]) -> Indices:
    one, expand = kept["one"], kept["expand"]
    q, v = (np.concatenate([kept[name], 4 + kept[name]]) for name in "qv")
    return {
        "one": (one,),
        "norm": (one,),
        "q": (q, one),
        "k": (q, one),
        "v": (v, one),
        "project": (one, v),
        "expand": (expand, one),
        "contract": (one, expand),
        "last": (np.arange(3), one),
    }


def library_attention() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = tokens(net, x)
        y = y + net.attention(y, y, y, need_weights=False)[0]
        return net.last((y + net.contract(F.gelu(net.expand(y)))).mean(1))

    return Net(
        forward,
        one=nn.Conv2d(3, 8, 4, stride=4),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        expand=nn.Linear(8, 10),
        contract=nn.Linear(10, 8),
        last=nn.Linear(8, 3),
    )


def fused_attention() -> Net:
    """Queries, keys and values from one layer, and the width of a head is written down."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = tokens(net, x)
        images, count, _ = y.shape
        q, k, v = net.qkv(y).reshape(images, count, 3, 2, 5).permute(2, 0, 3, 1, 4)
        y = y + net.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(images, count, 10))
        return net.last((y + net.contract(F.gelu(net.expand(y)))).mean(1))

    return Net(
        forward,
        one=nn.Conv2d(3, 8, 4, stride=4),
        qkv=nn.Linear(8, 30),
        project=nn.Linear(10, 8),
        expand=nn.Linear(8, 10),
        contract=nn.Linear(10, 8),
        last=nn.Linear(8, 3),
    )


def non_local(one: int = 8, q: int = 4, v: int = 4) -> Net:
    """Non-local networks (2017, arXiv 1711.07971)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        q, k, v = (layer(y).flatten(2) for layer in (net.q, net.k, net.v))
        seen = torch.bmm(v, torch.bmm(q.transpose(1, 2), k).softmax(-1).transpose(1, 2))
        return net.last((y + net.project(seen.view(len(y), -1, *y.shape[2:]))).relu().mean((2, 3)))

    return Net(
        forward,
        one=conv(3, one, stride=2),
        q=conv(one, q, 1),
        k=conv(one, q, 1),
        v=conv(one, v, 1),
        project=conv(v, one, 1),
        last=nn.Linear(one, 3),
    )


def non_local_by_hand(kept: Mapping[str, np.ndarray]) -> Indices:
    one, q, v = kept["one"], kept["q"], kept["v"]
    return {
        "one": (one,),
        "q": (q, one),
        "k": (q, one),
        "v": (v, one),
        "project": (one, v),
        "last": (np.arange(3), one),
    }


def class_token() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = tokens(net, x)
        y = torch.cat([net.token.expand(len(y), -1, -1), y], 1) + net.position
        return net.last((y + net.contract(F.gelu(net.expand(y))))[:, 0])

    return Net(
        forward,
        one=nn.Conv2d(3, 8, 4, stride=4),
        token=weight(1, 1, 8),
        position=weight(1, 5, 8),
        expand=nn.Linear(8, 10),
        contract=nn.Linear(10, 8),
        last=nn.Linear(8, 3),
    )


def mixer() -> Net:
    """MLP-Mixer (2021, arXiv 2105.01601): linear layers along the four tokens, then along the channels."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = tokens(net, x)
        y = y + net.back(F.gelu(net.along(y.transpose(1, 2)))).transpose(1, 2)
        return net.last((y + net.contract(F.gelu(net.expand(y)))).mean(1))

    return Net(
        forward,
        one=nn.Conv2d(3, 8, 4, stride=4),
        along=nn.Linear(4, 6),
        back=nn.Linear(6, 4),
        expand=nn.Linear(8, 10),
        contract=nn.Linear(10, 8),
        last=nn.Linear(8, 3),
    )


def stacked_branches() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        return net.last(torch.stack([branch(y) for branch in net.branches]).sum(0).relu().mean((2, 3)))

    branches = nn.ModuleList([conv(8, 6), conv(8, 6, 1), nn.Sequential(conv(8, 5), nn.ReLU(), conv(5, 6))])
    return Net(forward, one=conv(3, 8), branches=branches, last=nn.Linear(6, 3))


def recurrent() -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(net.two(net.memory(tokens(net, x))[0].mean(1)).tanh())

    memory = nn.GRU(8, 7, batch_first=True)
    return Net(forward, one=nn.Conv2d(3, 8, 4, stride=4), memory=memory, two=nn.Linear(7, 6), last=nn.Linear(6, 3))


def words() -> Net:
    return Net(
        lambda net, x: net.last(net.one(net.embed(x)).tanh().mean(1)),
        embed=nn.Embedding(10, 8),
        one=nn.Linear(8, 6),
        last=nn.Linear(6, 3),
    )


def chain_by_hand(kept: Mapping[str, np.ndarray]) -> Indices:
    one, two = kept["one"], kept["two"]
    return {"one": (one,), "two": (two, one), "last": (np.arange(3), two)}


def wide_norm(one: int = 4, two: int = 6) -> Net:
    """Norm groups are few and wide, and lose the same positions each."""
    norm = nn.GroupNorm(2, 2 * one)
    return between(lambda net, y: net.norm(y), into=2 * one, out=2 * one, then=two, norm=norm)


def wide_norm_by_hand(kept: Mapping[str, np.ndarray]) -> Indices:
    one = np.concatenate([kept["one"], 4 + kept["one"]])
    return chain_by_hand({"one": one, "two": kept["two"]}) | {"norm": (one,)}


FREELY, PAIRWISE, NEVER = {"one": 8, "two": 6}, {"one": 4, "two": 6}, {"two": 6}
VECTOR_AND_LABEL = (VECTOR, torch.zeros(1, dtype=torch.long))
IMAGE_AND_VECTOR = {"image": IMAGE, "vector": VECTOR}

CASES = [
    *(Case(name, make, FREELY) for name, make in FREE.items()),
    *(Case(name, make, PAIRWISE) for name, make in PAIRED.items()),
    *(
        Case(
            name,
            lambda one=8, two=6, middle=middle: between(middle, into=one, out=one, then=two),
            FREELY,
            by_hand=chain_by_hand,
        )
        for name, middle in STATISTICS.items()
    ),
    *(Case(name, make, NEVER, frozenset({"one"})) for name, make in REFUSED.items()),
    Case("functional", functional, {"first": 8, "second": 6}),
    Case(
        "kernel",
        lambda: between(lambda net, y: net.kernel(y).relu(), 7, kernel=Kernel(8, 7)),
        FREELY | {"kernel.kernel": 7},
    ),
    Case("concat-of-concat", concat_of_concat, {"a": 4, "b": 5, "c": 6, "join": 7}),
    Case("dense-block", dense_block, {"a": 4, "b": 5, "c": 6}),
    Case(
        "halves-apart",
        lambda: between(halves, 5, left=conv(4, 5), right=conv(4, 5)),
        PAIRWISE | {"left": 5},
    ),
    Case("shared-by-branches", shared_by_branches, {"one": 8, "shared": 5}),
    Case("squeeze-excite", squeeze_excite, FREELY | {"squeeze": 4}),
    Case(
        "spatial-attention",
        lambda: between(lambda net, y: y * net.attention(y).sigmoid(), attention=conv(8, 1)),
        FREELY,
        frozenset({"attention"}),
    ),
    Case("block-attention", block_attention, FREELY, frozenset({"attention"}), by_hand=chain_by_hand),
    Case("unet", unet, {"high": 4, "low": 6, "up": 5, "join": 7}),
    # 2 conv groups of 4 inputs: the same positions go in both.
    Case(
        "grouped-wide",
        lambda: between(lambda net, y: net.grouped(y), 12, grouped=conv(8, 12, groups=2)),
        PAIRWISE | {"grouped": 6},
    ),
    *(Case(f"flatten-{size}", lambda size=size: flattened(size), {"one": 6, "two": 7}) for size in (1, 2, 4)),
    Case("flatten-channels-last", lambda: flattened(2, channels_last=True), {"one": 6, "two": 7}),
    Case("flatten-norm", norm_of_flattened, {"one": 6}),
    Case("written-flatten", written_flatten, {"one": 8}, frozenset({"two"})),
    Case("generator", lambda: generator(-1), {"project": 6, "up": 5}, example=VECTOR),
    Case("written-generator", lambda: generator(6), {"up": 5}, frozenset({"project"}), example=VECTOR),
    Case("only-in-training", only_in_training, FREELY),
    Case("written-in-training", written_in_training, NEVER, frozenset({"one"})),
    Case("frames", frames, FREELY, example=torch.zeros(1, 4, 3, 8, 8)),
    Case("two-inputs", two_inputs, FREELY, example=(IMAGE, VECTOR)),
    Case("named-inputs", two_inputs, FREELY, example=IMAGE_AND_VECTOR),
    Case("modulated", modulated, {"film": 8}, example=IMAGE_AND_VECTOR),
    Case("many-outputs", many_outputs, FREELY, frozenset({"box"})),
    Case("features-too", features_too, {"one": 8}, frozenset({"two"})),
    Case(
        "weight-norm",
        lambda: parametrised(parametrizations.weight_norm),
        {"three": 6, "four": 5},
        frozenset({"one", "two"}),
    ),
    Case(
        "spectral-norm",
        lambda: parametrised(parametrizations.spectral_norm),
        {"three": 6, "four": 5},
        frozenset({"one", "two"}),
    ),
    Case(
        "weight-standardisation",
        lambda: parametrised(lambda _: Standardised(8, 7, 3)),
        {"three": 6, "four": 5},
        frozenset({"one", "two"}),
    ),
    Case("pixel-shuffle", lambda: between(lambda net, y: F.pixel_shuffle(y, 2), 4, 16), PAIRWISE),
    Case("zero-padded-shortcut", zero_padded_shortcut, {"one": 4, "mid": 5}),
    Case("tied-weights", tied_weights, {"one": 6}, example=VECTOR),
    Case("tied-transposed", tied_transposed, {"three": 5}, frozenset({"one", "two"}), example=VECTOR),
    Case("prototypes", prototypes, {"one": 6, "mid": 6}, frozenset({"protos"}), example=VECTOR),
    Case("label-embedding", label_embedding, {"one": 6, "mid": 6}, frozenset({"embed"}), example=VECTOR_AND_LABEL),
    Case("outputs-as-numbers", outputs_as_numbers, {"one": 6, "two": 7}, example=VECTOR),
    Case("both-sides-as-numbers", both_sides_as_numbers, {"three": 6}, frozenset({"two"}), example=VECTOR),
    Case("chosen-rows", chosen_rows, {"one": 6}, frozenset({"two"}), example=VECTOR),
    *(
        Case(f"chosen-by-{name}", lambda choose=choose: chosen_class(choose), {"one": 8}, frozenset({"two"}))
        for name, choose in CHOICES.items()
    ),
    Case("state-from-zeros", state_from_zeros, {"one": 8}),
    Case("resized-positions", resized_positions, {"one": 8, "expand": 10}),
    Case("best-positions", lambda: between(lambda net, y: y.flatten(2).topk(4, 2).values.unflatten(2, (2, 2))), FREELY),
    Case("convnext", convnext, {"one": 8, "expand": 16}, by_hand=convnext_by_hand),
    # Whole norm groups go: what stays is normalised as before.
    Case("group-norm", lambda: between(lambda net, y: net.norm(y), 16, 16, norm=nn.GroupNorm(4, 16)), PAIRWISE),
    Case("group-norm-wide", wide_norm, PAIRWISE, by_hand=wide_norm_by_hand),
    Case("conv1d", lambda: plain(1), FREELY, example=torch.zeros(1, 3, 9)),
    Case("conv3d", lambda: plain(3), FREELY, example=torch.zeros(1, 3, 4, 5, 4)),
    *(
        Case(
            name,
            lambda attend=attend, **widths: attention(attend, **widths),
            {"one": 8, "q": 4, "v": 4, "expand": 10},
            by_hand=attention_by_hand,
        )
        for name, attend in (("attention", product_attention), ("attention-op", F.scaled_dot_product_attention))
    ),
    Case("library-attention", library_attention, {"expand": 10}, frozenset({"one"})),
    Case("fused-attention", fused_attention, {"one": 8, "expand": 10}, frozenset({"qkv"})),
    Case("non-local", non_local, {"one": 8, "q": 4, "v": 4}, by_hand=non_local_by_hand),
    Case("class-token", class_token, {"one": 8, "expand": 10}),
    # The embedding could be cut, but a linear layer along another dimension than the channels is not followed.
    Case("mixer", mixer, {"along": 6, "expand": 10}, frozenset({"one"})),
    Case("stacked-branches", stacked_branches, {"one": 8, "branches.0": 6, "branches.2.0": 5}),
    Case("recurrent", recurrent, {"two": 6}, frozenset({"one"})),
    Case("embedding", words, {"one": 6}, example=torch.zeros(1, 4, dtype=torch.long)),
    *(
        Case(name, lambda middle=middle, into=into: between(middle, into=into), None)
        for name, into, middle in (
            ("unfold", 72, lambda net, y: F.unfold(y, 3, padding=1).view(len(y), -1, 8, 8)),
            ("every-second", 4, lambda net, y: y[:, ::2] - y[:, 1::2]),
            ("loop", 1, lambda net, y: torch.stack([part.sigmoid() for part in y.unbind(1)], 1).amax(1, keepdim=True)),
        )
    ),
]
