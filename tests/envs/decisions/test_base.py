"""A decision of another package takes part like those that come with rlprune."""

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import pytest
from toys import make_spec

from rlprune import registry
from rlprune.cost.exact import Cost
from rlprune.envs.decisions.base import NONE, Columns, Decision, Step, make_decisions, steps_of
from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec, retrace
from rlprune.errors import UserError
from rlprune.evaluation.sensitivity import Sensitivity


@dataclass(frozen=True)
class Tilt(Decision):
    """How wide the last group is, decided before all others."""

    needs: ClassVar[tuple[str, ...]] = ()
    rank: ClassVar[int] = 0

    def steps(self, cost: Cost) -> list[Step]:
        return [Step(0, 0)]

    def act(self, walks: BatchedEpisodes, subject: int, actions: np.ndarray) -> None:
        walks.base = walks.base.copy()
        walks.base[:, -1] *= np.exp(actions)

    def retrace(self, walks: BatchedEpisodes, subject: int, plans: np.ndarray) -> np.ndarray:
        return np.zeros(len(plans))

    def vary(self, spec: EpisodeSpec, wished: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return wished

    def describe(self, cost: Cost, sensitivity: Sensitivity) -> dict[str, np.ndarray]:
        return {"tilts": np.ones(1)}


@pytest.fixture
def tilted(monkeypatch: pytest.MonkeyPatch) -> EpisodeSpec:
    offered: Any = EntryPoint("tilt", f"{__name__}:Tilt", "rlprune.decisions")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Tilt)
    monkeypatch.setattr(registry, "_elsewhere", lambda kind: {"tilt": offered} if kind == "decision" else {})
    decisions = make_decisions(["channels", "tilt"])
    spec = make_spec("macs=0.5", decisions=decisions)
    curves = Sensitivity(np.array([1.0, 0.5]), np.zeros((3, 2)))
    return replace(spec, features=spec.features.asking(decisions, spec.projector.cost, curves))


def walked(spec: EpisodeSpec, actions: list[float]) -> list[int]:
    walks = BatchedEpisodes(spec, 1)
    for action in actions:
        walks.step(np.array([action]))
    found: list[int] = walks.counts[0].tolist()
    return found


def test_it_is_asked_in_its_place_and_changes_the_plan(tilted: EpisodeSpec) -> None:
    assert [type(decision).__name__ for decision, _ in tilted.steps] == ["Tilt", *["Channels"] * 3]
    assert tilted.features.names[-1] == "tilts"
    assert [BatchedEpisodes(tilted, 2).observe()[0, -1], tilted.features.size] == [1.0, len(tilted.features.names)]
    narrow, usual, wide = (walked(tilted, [action, 0, 0, 0])[-1] for action in (-1.0, 0.0, 1.0))
    assert narrow < usual < wide
    assert walked(tilted, [0.0, 0, 0, 0]) == walked(make_spec("macs=0.5"), [0.0, 0, 0])
    seen, done = retrace(tilted, np.array([[4, 4, 4]]))
    assert (len(seen), done[0].tolist()) == (4, [0.0])


def test_steps_before_the_same_group_go_by_rank() -> None:
    channels, blocks = make_decisions(["channels", "blocks"])[::-1]
    assert (channels.rank, blocks.rank) == (2, 0)
    assert len(steps_of([blocks, channels], make_spec().projector.cost)) == 3, "there are no blocks"
    with pytest.raises(UserError, match="unknown decision 'chanels': did you mean 'channels'"):
        make_decisions(["chanels"])


@dataclass(frozen=True)
class Bits(Tilt):
    """A quantity a group, and one number for the whole network that is a choice among three."""

    rank: ClassVar[int] = 3

    def columns(self, cost: Cost) -> Columns:
        return Columns((8, 8, 8, 0), (1, 1, 1, 3), ((4, 4, 4, 0),))


def test_several_decisions_have_columns_side_by_side() -> None:
    (channels, criteria), bits = make_decisions(["channels", "criteria:number=2"])[::-1], Bits()
    spec = make_spec(decisions=(criteria, channels, bits))
    assert spec.base_plan()[3:].tolist() == [0, 0, 0, 8, 8, 8, 0]
    assert (spec.place_of(criteria), spec.place_of(channels), spec.place_of(bits)) == (
        slice(0, 3), slice(3, 3), slice(3, 7),
    )  # fmt: skip
    assert spec.columns.others == ((1, 1, 1, 8, 8, 8, 0), (0, 0, 0, 4, 4, 4, 0))
    plan = spec.columns.complete(np.array([5, 5, 5]), 3)
    assert plan.tolist() == [5, 5, 5, 0, 0, 0, 8, 8, 8, 0]
    assert spec.columns.complete(plan, 3) is plan
    seen = spec.columns.seen(np.array([[0, 1, 0, 8, 4, 2, 2], [1, 0, 0, 8, 8, 8, 1]]))
    # A choice is seen value by value but for the first, a quantity as it is.
    assert seen.tolist() == [[0, 1, 0, 8, 4, 2, 0, 1], [1, 0, 0, 8, 8, 8, 1, 0]]
    assert NONE.seen(np.empty((2, 0))).shape == (2, 0)
