"""A decision of another package takes part like those that come with rlprune."""

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import pytest
from toys import make_spec

from rlprune import registry
from rlprune.cost.exact import Cost
from rlprune.envs.decisions.base import Decision, Step, make_decisions, steps_of
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
    assert (channels.rank, blocks.rank) == (1, 0)
    assert len(steps_of([blocks, channels], make_spec().projector.cost)) == 3, "there are no blocks"
    with pytest.raises(UserError, match="unknown decision 'chanels': did you mean 'channels'"):
        make_decisions(["chanels"])
