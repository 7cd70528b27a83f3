from collections.abc import Callable
from typing import Any

import pytest


def test_the_groups_of_a_network(run_json: Callable[..., Any], shop: Any, searched: Any) -> None:
    result = run_json("inspect", "--model", shop.settings["model"], "--data", shop.settings["data"])
    # 16 x 16 positions in the first layer, 8 x 8 behind its stride.
    stem, inner, outer, last = 3 * 16 * 9 * 256, 16 * 32 * 9 * 64, 32 * 32 * 9 * 64, 32 * 48 * 9 * 64
    dense = stem + inner + outer + last + 48 * 3
    assert result["macs"] == dense == searched.result["dense_macs"]
    assert result["params"] == searched.result["dense_params"]
    assert [(group["group"], group["channels"]) for group in result["groups"]] == [
        ("stem", 16), ("inner", 32), ("last", 48),
    ]  # fmt: skip
    assert "outer" in result["groups"][1]["producers"]
    assert result["groups"][0]["macs_share"] == pytest.approx((stem + inner) * 15 / 16 / dense)
    assert result["groups"][2]["macs_share"] == pytest.approx((last + 48 * 3) * 47 / 48 / dense)
    smallest = 3 * 9 * 256 + 9 * 64 * 3 + 3
    assert result["smallest_macs"] == pytest.approx(smallest / dense)
    rounded = run_json("inspect", "--model", shop.settings["model"], "--data", shop.settings["data"], "--round-to", 16)
    assert rounded["smallest_macs"] > result["smallest_macs"]


def test_what_is_shown(run: Callable[..., Any], shop: Any) -> None:
    code, out, _ = run("inspect", "--model", shop.settings["model"], "--data", shop.settings["data"])
    assert code == 0
    assert all(name in out for name in ("stem", "inner", "last"))
