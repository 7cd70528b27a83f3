"""The clock is a fake: nothing here waits or depends on the machine."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rlprune.latency import timing
from rlprune.latency.timing import Timing, build, interleave, noise, summarise
from rlprune.models.registry import rebuild_model

NETWORK = {"model": "resnet20", "args": {"width": 0.25}, "classes": 4, "image_size": 16}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """Makes runs that take so many seconds of a clock that nothing else moves; `clock.order` lists them."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def make(seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds
            make.order.append(seconds)  # type: ignore[attr-defined]

        return run

    make.order = []  # type: ignore[attr-defined]
    return make


def test_runs_take_turns_after_a_warm_up(clock: Callable[[float], Callable[[], None]]) -> None:
    times = interleave([clock(0.001), clock(0.002)], 1.0, (2, 4))
    np.testing.assert_allclose(times, np.tile([1.0, 2.0], (4, 1)))
    assert clock.order[:4] == [0.001, 0.001, 0.002, 0.002]  # type: ignore[attr-defined]
    assert clock.order[4:8] == [0.001, 0.002, 0.002, 0.001] or clock.order[4:8] == [  # type: ignore[attr-defined]
        0.002, 0.001, 0.001, 0.002,
    ]  # fmt: skip


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 10), (100, 10), (1, 84)])
def test_time_is_kept_but_for_the_fewest_rounds(
    clock: Callable[[float], Callable[[], None]], seconds: float, rounds: int
) -> None:
    """1 s in rounds of 12 ms, of which two are the warm-up."""
    if seconds == 1:
        assert abs(len(interleave([clock(0.004), clock(0.008)], 1.0, (10, 1000))) - (1000 / 12 - 2)) <= 1
    else:
        assert len(interleave([clock(seconds)], 0.5, (10, 10))) == rounds


def test_summaries_are_medians_and_tails() -> None:
    times = np.stack([np.arange(101.0), np.full(101, 7.0)], axis=1)
    assert summarise(times) == [Timing(50.0, 95.0), Timing(7.0, 7.0)]


@pytest.mark.parametrize(
    ("one", "again", "said"),
    [
        (Timing(10, 11), Timing(10.4, 12), ""),
        (Timing(10, 11), Timing(11, 12), "differs by 9 %"),
        (Timing(10, 31), Timing(10, 12), "its p95 is 3.1 times its median"),
    ],
)
def test_noise(one: Timing, again: Timing, said: str) -> None:
    assert (said in noise(one, again)) if said else noise(one, again) == ""


def test_networks_are_built_as_they_are_described() -> None:
    dense, shape = build({"network": NETWORK})
    assert shape == (3, 16, 16)
    expected = rebuild_model(NETWORK).state_dict()
    assert {name: value.shape for name, value in dense.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }
    smaller, _ = build({"network": NETWORK, "counts": [2] * 12})
    assert not smaller.training
    assert {len(layer.weight) for layer in smaller.modules() if isinstance(layer, torch.nn.Conv2d)} == {2}
