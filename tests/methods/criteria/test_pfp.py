"""Shares of channels in sums, number by number."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scoring import BATCH, conv, coupled, head, scores_of
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.methods.criteria import base_gradients, pfp


def shares(terms: list[float]) -> list[float]:
    total = sum(terms)
    return [term / total if total > 0 else 0.0 for term in terms]


def greatest(rows: Iterator[tuple[list[float], list[float]]]) -> np.ndarray:
    """The greatest share of every input, of rows of weights and of what they are laid upon."""
    best: Any = 0
    for weights, values in rows:
        for sign in (1, -1):
            for other in (1, -1):
                parts = [max(sign * w, 0) * max(other * a, 0) for w, a in zip(weights, values, strict=True)]
                best = np.maximum(best, shares(parts))
    return np.array(best)


def brute(layer: Any, x: Tensor, group: int = 0) -> np.ndarray:
    """(inputs of a group,) of a convolution, by loops over images, places, filters and kernel."""

    def rows() -> Iterator[tuple[list[float], list[float]]]:
        outs, ins = len(layer.weight) // layer.groups, layer.weight.shape[1]
        mine = x[:, group * ins : (group + 1) * ins]
        (high, wide), (step, _), (pad, _), (gap, _) = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        height, width = layer(x).shape[2:]
        for image in mine:
            for row in range(height):
                for column in range(width):
                    for i in range(high):
                        for j in range(wide):
                            y, z = row * step - pad + i * gap, column * step - pad + j * gap
                            if 0 <= y < image.shape[1] and 0 <= z < image.shape[2]:
                                for weights in layer.weight[group * outs : (group + 1) * outs, :, i, j]:
                                    yield weights.tolist(), image[:, y, z].tolist()

    return greatest(rows())


NETS = {
    "plain": dict(kernel_size=3, padding=1),
    "strided": dict(kernel_size=2, stride=2),
    "strided and padded": dict(kernel_size=3, stride=3, padding=1),
    "dilated": dict(kernel_size=2, dilation=3, padding=2),
    "pointwise": dict(kernel_size=1, stride=2),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("signed", [False, True])
def test_convolutions(name: str, signed: bool) -> None:
    torch.manual_seed(0)
    act = nn.Tanh() if signed else nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), act, nn.Conv2d(4, 3, **NETS[name]), *head(3)).eval()  # type: ignore[arg-type]
    images = BATCH[0][:2, :, :5, :5]
    expected = brute(net[2], net[1](net[0](images)).detach())
    assert scores_of("pfp:positions=0", net, (images, BATCH[1][:2]))["0"] == pytest.approx(expected, rel=1e-5)


def test_every_place_of_a_kernel_counts_by_itself() -> None:
    # The first channel is all that the left column reads, and a tenth of what the right one does.
    kernel = torch.tensor([[[[1.0, 1.0]], [[0.0, 9.0]]]])
    net = nn.Sequential(conv([[1.0, 0, 0], [1, 0, 0]]), conv(kernel), *head(1)).eval()
    images = torch.ones(1, 3, 1, 2)
    assert scores_of("pfp", net, (images, torch.tensor([0])))["0"] == pytest.approx([1, 0.9])


def test_weights_and_activations_of_either_sign_are_shared_out_by_themselves() -> None:
    net = nn.Sequential(
        conv(torch.diag(torch.tensor([1.0, 3, -1]))), conv([[2.0, 2, 7], [-1.0, -1, 0]]), *head(2)
    ).eval()
    # The first two are positive, 1 and 3, and share; the third is the only one that is negative.
    assert scores_of("pfp", net, (torch.ones(1, 3, 1, 1), torch.tensor([0])))["0"] == pytest.approx([1 / 4, 3 / 4, 1])


def test_groups_share_among_themselves() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(4, 3, 1), *head(3)
    ).eval()
    x = net[1](net[0](BATCH[0][:2])).detach()
    halves = [brute(net[2], x, group) for group in (0, 1)]
    # The same place in both groups goes together.
    assert scores_of("pfp:positions=0", net, (BATCH[0][:2], BATCH[1][:2]))["0"] == pytest.approx(
        np.maximum(*halves), rel=1e-5
    )


def test_transposed_convolutions_and_linear_layers() -> None:
    torch.manual_seed(0)
    net: Any = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Tanh(), nn.ConvTranspose2d(3, 2, 3, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2),
    ).eval()  # fmt: skip
    images = BATCH[0][:3]
    places = net[1](net[0](images)).movedim(1, -1).flatten(0, 2).tolist()
    columns = [net[2].weight[:, out, i, j].tolist() for out in range(2) for i in range(3) for j in range(3)]
    wide, hidden = net[:6](images), net[:8](images)
    expected = {
        "0": greatest((column, place) for column in columns for place in places),
        "2": greatest((row, image) for row in net[6].weight.tolist() for image in wide.tolist()),
        "6": greatest((row, image) for row in net[8].weight.tolist() for image in hidden.tolist()),
    }
    scores = scores_of("pfp:positions=0", net, (images, BATCH[1][:3]))
    for name, values in expected.items():
        assert scores[name] == pytest.approx(values, rel=1e-5)


def test_the_greatest_of_all_readers() -> None:
    net: Any = coupled()
    x = net.stem_norm(net.stem(BATCH[0])).relu().detach()
    left, right = brute(net.body, x), brute(net.wide, (x + net.body(x)).detach())
    assert scores_of("pfp:positions=0", net)["stem"] == pytest.approx(np.maximum(left, right), rel=1e-5)


def test_the_range_the_dead_and_the_only_one() -> None:
    net: Any = coupled()
    with torch.no_grad():
        net.left.weight[1], net.left.bias[1] = 0, 0
    scores = scores_of("pfp", net)
    assert all(((mine >= 0) & (mine <= 1)).all() for mine in scores.values())
    assert scores["left"][1] == 0
    alone = nn.Sequential(conv([[1.0, 1, 1], [0, 0, 0]]), nn.Tanh(), nn.Conv2d(2, 3, 3, padding=1), *head(3)).eval()
    assert scores_of("pfp", alone)["0"].tolist() == [1, 0]


def test_the_scale_of_filters_does_not_count() -> None:
    one, other = coupled(), coupled()
    with torch.no_grad():
        other.get_parameter("body.weight").mul_(1)
        other.get_parameter("wide.weight").mul_(torch.tensor([1.0, 2, 3, 4, 5, 6]).view(-1, 1, 1, 1))
        other.get_parameter("last.weight").mul_(100)
    name = "pfp:positions=0"
    assert scores_of(name, one)["stem"] == pytest.approx(scores_of(name, other)["stem"], rel=1e-5)
    assert scores_of(name, one)["hidden"].max() <= 1


def test_positions_that_are_drawn() -> None:
    net = coupled()
    whole = scores_of("pfp:positions=0", net)
    few, same, other, many = (
        scores_of(f"pfp:positions={count}", net, seed=seed) for count, seed in ((2, 0), (2, 0), (2, 1), (36, 0))
    )
    for name, most in whole.items():
        assert (few[name] <= most + 1e-6).all()
        assert (few[name] == same[name]).all()
        assert many[name] == pytest.approx(most)
    assert any((few[name] != other[name]).any() for name in whole)


def test_in_chunks_and_in_blocks_is_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores_of("pfp:positions=0", coupled())
    monkeypatch.setattr(base_gradients, "PIXELS", 4 * 6 * 6)
    monkeypatch.setattr(pfp, "BLOCK", 500)
    for group, scores in scores_of("pfp:positions=0", coupled()).items():
        assert scores == pytest.approx(whole[group], rel=1e-6)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="criterion pfp:positions=-1: expected 0, which is all, or more"):
        scores_of("pfp:positions=-1", coupled())
