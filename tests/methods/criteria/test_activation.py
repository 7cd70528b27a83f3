"""Activations of images of one colour."""

import numpy as np
import pytest
import torch
from scoring import BATCH, Folding, conv, coupled, head, scores_of
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.methods.criteria import base_gradients


def plain(*colours: list[float]) -> tuple[Tensor, Tensor]:
    images = torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 2, 2)
    return images, torch.zeros(len(colours), dtype=torch.long)


def test_mean_and_variation() -> None:
    net = nn.Sequential(conv([[1.0, 0, 0], [0, -2, 0], [0, 0, 1]]), nn.ReLU(), conv(torch.ones(2, 3)), *head(2)).eval()
    batch = plain([1, -1, 5], [3, 1, 5])
    # After the ReLU: 1 and 3, 2 and 0, 5 and 5.
    assert scores_of("activation", net, batch)["0"] == pytest.approx([2, 1, 5])
    assert scores_of("activation:of=std", net, batch)["0"] == pytest.approx([1, 1, 0])
    # What has no ReLU behind it counts without its sign: 1 + 2 + 5 and 3 + 0 + 5.
    assert scores_of("activation", net, batch)["2"] == pytest.approx([8, 8])


@pytest.mark.parametrize("name", ["activation", "activation:of=std"])
def test_in_chunks_is_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores_of(name, coupled())
    monkeypatch.setattr(base_gradients, "PIXELS", 4 * 6 * 6)
    for group, scores in scores_of(name, coupled()).items():
        assert scores == pytest.approx(whole[group])


@pytest.mark.parametrize("before", [False, True])
def test_rows_that_are_no_images(before: bool) -> None:
    torch.manual_seed(0)
    net = Folding(before).eval()
    values = net.one(BATCH[0]).relu().flatten(2).mean(2)
    scores = scores_of("activation:of=std", net)
    assert scores["one"] == pytest.approx(values.detach().numpy().std(0), rel=1e-5)


class Attention(nn.Module):
    """Nothing but a product reads what `query` and `key` make."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.query, self.key, self.last = (
            nn.Conv2d(3, 4, 1),
            nn.Linear(4, 3),
            nn.Linear(4, 3),
            nn.Linear(4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        return self.last(((self.query(x) @ self.key(x).mT).softmax(-1) @ x).mean(1))


@pytest.mark.parametrize("name", ["activation", "group-fisher", "pfp"])
def test_channels_that_no_layer_reads(name: str) -> None:
    with pytest.raises(
        UserError, match=f"{name} does not apply: no layer that is called reads the channels of 'query'"
    ):
        scores_of(name, Attention().eval())


def test_layers_that_are_not_called() -> None:
    class Borrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.conv2d(self.one(x), self.two.weight, self.two.bias)
            return self.last(x.mean((2, 3)))

    with pytest.raises(UserError, match="no layer that is called reads the channels of 'one'"):
        scores_of("activation", Borrowing().eval())


def test_the_first_moment_of_real_maps() -> None:
    net, (images, _) = coupled(), BATCH
    maps = torch.relu(net.stem_norm(net.stem(images)))  # type: ignore[operator]
    after = maps + net.body(maps)  # type: ignore[operator]
    means = [each.abs().mean((0, 2, 3)).detach().numpy() for each in (maps, after)]
    assert scores_of("activation", net)["stem"] == pytest.approx(np.mean(means, axis=0), rel=1e-5)
