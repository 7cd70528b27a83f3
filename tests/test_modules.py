import pytest
from torch import nn

from rlprune.modules import axis_size, evaluating, is_depthwise


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), True),
        (nn.Conv2d(4, 8, 3, groups=4), False),
        (nn.Conv2d(4, 4, 3, groups=2), False),
        (nn.Conv2d(1, 1, 3), False),
        (nn.Linear(4, 4), False),
    ],
)
def test_depthwise(layer: nn.Module, expected: bool) -> None:
    assert is_depthwise(layer) == expected


@pytest.mark.parametrize(
    ("layer", "out", "inside"),
    [
        (nn.Conv2d(3, 8, 3), 8, 3),
        (nn.Conv1d(3, 8, 3), 8, 3),
        (nn.Linear(5, 2), 2, 5),
        (nn.BatchNorm2d(7, affine=False), 7, 7),
    ],
)
def test_axis_size(layer: nn.Module, out: int, inside: int) -> None:
    assert (axis_size(layer, "out"), axis_size(layer, "in")) == (out, inside)


def test_evaluating_restores_the_mode_of_every_module() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout(), nn.BatchNorm1d(1))
    module[2].eval()

    def ends_badly() -> None:
        with evaluating(module) as inside:
            assert not any(part.training for part in inside.modules())
            raise KeyError

    with pytest.raises(KeyError):
        ends_badly()
    assert [part.training for part in module.modules()] == [True, True, True, False]
