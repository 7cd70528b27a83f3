"""Numbers in words: short, and true to what they round."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rlprune.cost.budget import WORDS
from rlprune.cost.exact import build_cost
from rlprune.envs.observation import build_features
from rlprune.errors import UserError
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.reports.words import closing, observation_words
from rlprune.tracing.build import build_graph
from rlprune.utils.text import count, duration, milliseconds, percent, seconds

RESULT = {
    "run": "runs/r",
    "plan": "runs/r/plan.json",
    "macs_ratio": 0.29968,
    "dense_macs": 19_700_000,
    "pruned_macs": 5_903_696,
    "dense_params": 923_000,
    "pruned_params": 114_452,
}


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (999_499, "999 k"), (999_500, "1.00 M"), (15_470_264_320, "15.5 G")],
)
def test_counts_have_three_digits(number: int, text: str) -> None:
    assert count(number) == text


@given(st.integers(1, 10**15 - 10**12))
def test_counts_are_short_and_true_to_half_a_percent(number: int) -> None:
    size = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    value, _, unit = count(number).partition(" ")
    assert len(count(number)) <= 6
    assert float(value) * size.get(unit, 1) == pytest.approx(number, rel=5.01e-3)


@given(st.lists(st.integers(1, 10**12), min_size=4, max_size=4), st.floats(0, 1))
def test_the_line_of_costs_fits_80_columns(sizes: list[int], ratio: float) -> None:
    names = ("dense_macs", "pruned_macs", "dense_params", "pruned_params")
    result = RESULT | dict(zip(names, sizes, strict=True)) | {"macs_ratio": ratio}
    label, value, note = closing(result)[1]
    assert len(f"{label:<9} {value} ({note})") <= 80


@pytest.mark.parametrize(
    ("length", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 0 s"), (252.4, "4 min 12 s"), (3725, "1 h 2 min")],
)
def test_durations(length: float, text: str) -> None:
    assert duration(length) == text


def test_the_file_and_the_latency() -> None:
    latency = {
        "backend": "torch",
        "batch": 1,
        "threads": 2,
        "device": "cpu",
        "dense_ms": 12.34,
        "pruned_ms": 4.936,
        "noise": "",
    }
    more = {"dense_bytes": 58_914_827, "pruned_bytes": 12_000, "latency": latency}
    assert closing({**RESULT, **more})[1:3] == [
        ("file", "58.9 MB → 12.0 kB", "float32 weights"),
        ("latency", "12.3 ms → 4.94 ms", "2.50 × as fast; torch, batch 1, 2 threads"),
    ]
    noisy = {**RESULT, **more, "latency": latency | {"noise": "so much", "device": "cuda"}}
    assert closing(noisy)[2][2] == "2.50 × as fast; torch, batch 1; this machine is too noisy to tell"
    warned = {**RESULT, **more, "latency": {**more["latency"], "warnings": ["it is slow"]}}
    assert closing(warned)[3] == ("warning", "it is slow", "")


@pytest.mark.parametrize(
    ("number", "text"), [(0.04567, "0.0457 ms"), (9.999, "10.0 ms"), (123.4, "123 ms"), (4321, "4321 ms")]
)
def test_milliseconds(number: float, text: str) -> None:
    assert milliseconds(number) == text


def test_percent() -> None:
    assert percent(0.3) == "30.0 %"
    assert percent(0.38204, 2) == "38.20 %"


def test_a_plan_outside_the_run_folder_is_named_in_full() -> None:
    assert closing({**RESULT, "plan": "elsewhere/plan.json"})[-1] == (
        "results",
        "runs/r",
        "plan: elsewhere/plan.json",
    )


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("0.5s", 0.5)])
def test_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "m", "0m", "-1h", "nanm", "infs", "1d", "ten m"])
def test_no_time(text: str) -> None:
    with pytest.raises(UserError, match=r"such as 90s, 10m or 1\.5h"):
        seconds(text)


def test_all_that_is_seen_of_a_network_is_told_in_words() -> None:
    """Every entry in its own."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    graph = build_graph(net.eval(), torch.zeros(1, 3, 4, 4))
    scores, curves = np.ones(8), Sensitivity(np.array([1, 0.5]), np.zeros((2, 2)))
    names = build_features(graph, build_cost(graph), scores, (scores, scores), curves, graph.sizes, tuple(WORDS)).names
    assert len({observation_words(name) for name in names}) == len(names)
    assert [name for name in names if observation_words(name) == name] == []
    assert observation_words("after_rise_at_0.5") == "rise of the loss at 50 % kept, of the groups after"
    assert observation_words("before_kept") == "ratio that is kept, of the groups before"


def test_what_is_seen_of_blocks_is_told_in_words() -> None:
    for name in ("asks_block", "block_rise", *(f"block_saves_{resource}" for resource in WORDS)):
        assert observation_words(name) != name
    assert observation_words("of_another_version") == "of_another_version"


def test_what_is_seen_of_criteria_is_told_in_words() -> None:
    assert observation_words("asks_criterion_3") == "whether criterion 3 is asked for"
