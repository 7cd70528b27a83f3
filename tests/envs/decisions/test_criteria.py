"""Walks that also decide which criterion ranks the channels of every group."""

import numpy as np
import pytest
import torch
from residual import EXAMPLE, basic, inverted, network
from toys import make_spec

from rlprune.agents.search.rounds import perturbed_plans
from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.decisions.base import NONE, make_decisions
from rlprune.envs.decisions.criteria import CHOSEN, FIRST, NOT
from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec, retrace
from rlprune.envs.observation import DYNAMIC, Features
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.tracing.build import build_graph

THREE = make_decisions(["channels", "criteria:number=3"])
CURVES = Sensitivity(np.array([1.0, 0.5]), np.zeros((3, 2)))


def three(budget: str | None = "macs=0.5") -> EpisodeSpec:
    return make_spec(budget, decisions=THREE)


def walked(spec: EpisodeSpec, actions: list[float]) -> list[int]:
    walks = BatchedEpisodes(spec, 1)
    for action in actions:
        walks.step(np.array([action]))
    found: list[int] = walks.plans[0].tolist()
    return found


@pytest.mark.parametrize(
    ("logits", "criterion"),
    [
        ((0.0, 0.0), 0), ((FIRST, FIRST), 0), ((0.3, 0.0), 1), ((0.0, 0.3), 2), ((0.3, 0.4), 2), ((0.9, 0.4), 1),
        ((0.5, 0.5), 1), ((-1.0, -1.0), 0), ((1.0, -1.0), 1), ((-1.0, 1.0), 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("group", [0, 1, 2])
def test_the_highest_logit_wins(logits: tuple[float, float], criterion: int, group: int) -> None:
    """Two logits and a ratio a group; all three groups are cut, so that all choices count."""
    actions = [0.0] * 9
    actions[3 * group : 3 * group + 2] = logits
    plan = walked(three(), actions)
    assert plan[3:] == [criterion if place == group else 0 for place in range(3)]


def test_choices_leave_the_counts_alone() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        ratios, logits = rng.uniform(-1, 1, 3), rng.uniform(-1, 1, (3, 2))
        actions = np.column_stack([logits, ratios]).ravel().tolist()
        assert walked(three(), actions)[:3] == walked(make_spec(), ratios.tolist())


def test_what_is_asked_is_seen() -> None:
    assert [(type(decision).__name__, step) for decision, step in three().steps[:3]] == [
        ("Criteria", (0, 0)), ("Criteria", (0, 1)), ("Channels", (0, 0)),
    ]  # fmt: skip
    spec = three()
    features = spec.features.asking(THREE, spec.projector.cost, CURVES)
    assert features.names[-2:] == ("asks_criterion_2", "asks_criterion_3")
    assert features.asked is not None
    assert features.asked.tolist() == [[1, 0], [0, 1], [0, 0]] * 3


def test_one_criterion_is_no_choice() -> None:
    decisions = make_decisions(["channels", "criteria"])
    spec = make_spec(decisions=decisions)
    assert [type(decision).__name__ for decision, _ in spec.steps] == ["Channels"] * 3
    assert spec.columns == NONE
    assert spec.base_plan().tolist() == make_spec().base_plan().tolist()


def test_a_choice_that_makes_no_difference_is_none() -> None:
    """Of a group that is kept whole no criterion says what goes; there is one plan for all of them."""
    spec = three(None)
    assert walked(spec, [1.0, 0.0, 1.0] * 3) == [8, 8, 8, 0, 0, 0]
    plans = three().finish(np.array([[8.0, 2.0, 2.0, 2, 1, 0], [8.0, 2.0, 2.0, 1, 1, 0]]))
    assert plans[0, 0] == 8
    assert plans[0].tolist() == plans[1].tolist()
    assert plans[0, 3:].tolist() == [0, 1, 0]


def test_every_criterion_everywhere_is_measured_first() -> None:
    assert three().columns.base == (0, 0, 0)
    assert three().columns.others == ((1, 1, 1), (2, 2, 2))


def test_varied_plans_have_other_criteria() -> None:
    plans = perturbed_plans(three("macs=0.2"), np.random.default_rng(0), 400)
    assert plans.shape == (400, 6)
    # 15 % are drawn anew, a third of them as they were.
    np.testing.assert_allclose((plans[:, 3:] > 0).mean(0), 0.1, atol=0.05)
    assert set(plans[:, 3:].ravel().tolist()) == {0, 1, 2}
    counts = perturbed_plans(make_spec("macs=0.2"), np.random.default_rng(0), 400)
    assert (plans[:, :3] == counts).all()


torch.manual_seed(0)
GRAPH = build_graph(network(basic(inner=16), inverted(), basic(inner=16)), EXAMPLE)


def test_walks_of_all_decisions_are_retraced_into_their_plans() -> None:
    cost, groups, rng = build_cost(GRAPH), len(GRAPH.sizes), np.random.default_rng(1)
    names = ("nothing", *(f"dynamic_{i}" for i in range(DYNAMIC)))
    features = Features(np.zeros((groups, 1)), names, np.zeros((2, groups, groups)))
    decisions = make_decisions(["channels", "blocks", "criteria:number=4"])
    projector = BudgetProjector(cost, parse_budget("macs=0.5"))
    spec = EpisodeSpec(projector, features, GRAPH.sizes.astype(float), -1.0, np.zeros(2), decisions=decisions)
    wished = GRAPH.sizes * np.exp(rng.normal(0, 0.2, (40, groups)))
    for plan in wished:
        for block in GRAPH.blocks:
            plan[list(block.groups)] *= rng.random() < 0.6
    choices = rng.integers(4, size=(40, groups))
    plans = spec.finish(np.concatenate([np.minimum(wished, GRAPH.sizes), choices], axis=1))
    free = (plans[:, :groups] > 0) & (plans[:, :groups] < GRAPH.sizes)
    assert (plans[:, groups:] == choices * free).all()
    _, done = retrace(spec, plans)
    asked = [place for place, (decision, _) in enumerate(spec.steps) if decision.rank == 1]
    assert len(asked) == 3 * groups
    assert set(done[asked].ravel().tolist()) == {NOT, CHOSEN}
    walks = BatchedEpisodes(spec, 40)
    for actions in done:
        walks.step(actions)
    same = (walks.counts == plans[:, :groups]) & free
    assert same.sum() > 0.9 * free.sum()
    assert (walks.plans[:, groups:] == plans[:, groups:])[same].all()
