"""`rlprune methods` lists what can be named."""

from collections.abc import Callable
from typing import Any

from rlprune import registry


def test_every_method_of_every_kind(run_json: Callable[..., dict[str, Any]]) -> None:
    rows = run_json("methods")["methods"]
    assert {(row["kind"], row["name"]) for row in rows} == {
        (kind, name) for kind in registry.KINDS for name in registry.names(kind)
    }


def test_one_kind(run: Callable[..., Any]) -> None:
    ended = run("methods", "criterion")
    assert ended.code == 0
    shown = " ".join(ended.out.split())
    assert f"criterion: {len(registry.names('criterion'))} methods" in shown
    assert "taylor:order=1" in shown
    assert "arXiv 1906.10771" in shown
    assert "allocator" not in shown


def test_an_unknown_kind(run: Callable[..., Any]) -> None:
    ended = run("methods", "criteria")
    assert ended.code == 2
    assert "unknown kind 'criteria': did you mean 'criterion'?" in ended.err
