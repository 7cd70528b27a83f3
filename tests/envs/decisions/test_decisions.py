"""Walks that also decide which residual blocks stay."""

import numpy as np
import pytest
import torch
from residual import EXAMPLE, basic, inverted, network
from torch.utils.flop_counter import FlopCounterMode

from rlprune.agents.search.rounds import perturbed_plans
from rlprune.agents.search.setup import without_blocks
from rlprune.agents.search.surrogate import FLOOR, OneShotSurrogate, plan_features
from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.decisions.base import make_decisions
from rlprune.envs.decisions.blocks import GO, STAY, THRESHOLD
from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec, retrace
from rlprune.envs.observation import DYNAMIC, Features
from rlprune.envs.render import episode_table
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.graph.surgery import prune
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph

torch.manual_seed(0)
NET = network(basic(inner=16), inverted(), basic(inner=16))
GRAPH = build_graph(NET, EXAMPLE)
COST = build_cost(GRAPH)
SIZES = GRAPH.sizes
# stem, conv1 of the first block, expand and squeeze of the second, conv1 of the third
INNER = [block.groups for block in GRAPH.blocks]
ORDER = [0, "1.0", 1, "1.1", 2, 3, "1.2", 4]


def curves() -> Sensitivity:
    ratios, rises = np.array([1.0, 0.5, 0.25]), np.tile([0.0, 0.1, 0.4], (len(SIZES), 1))
    return Sensitivity(ratios, rises, tuple(zip(INNER, (0.05, 0.3, 2.0), strict=True)))


def make_spec(budget: str | None = "macs=0.5", names: tuple[str, ...] = ("channels", "blocks")) -> EpisodeSpec:
    projector = BudgetProjector(COST, parse_budget(budget))
    names_of, groups = ("nothing", *(f"dynamic_{i}" for i in range(DYNAMIC))), len(SIZES)
    features = Features(np.zeros((groups, 1)), names_of, np.zeros((2, groups, groups)))
    decisions = make_decisions(names)
    asked = features.asking(decisions, COST, curves())
    return EpisodeSpec(projector, asked, SIZES.astype(float), -1.0, np.zeros(2), decisions=decisions)


def walk(spec: EpisodeSpec, actions: list[float]) -> BatchedEpisodes:
    walks = BatchedEpisodes(spec, 1)
    for action in actions:
        walks.step(np.array([action]))
    return walks


def test_a_block_is_asked_for_before_its_first_group() -> None:
    spec = make_spec()
    steps = [step.subject if decision.rank else GRAPH.blocks[step.subject].name for decision, step in spec.steps]
    assert steps == ORDER
    assert [step.group for _, step in make_spec(names=("channels",)).steps] == [0, 1, 2, 3, 4]


def test_a_block_goes_above_the_threshold_and_what_it_frees_is_for_the_others() -> None:
    spec = make_spec()
    stays = [0.0] * len(ORDER)
    goes = [0.0, THRESHOLD + 0.01, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    whole, without = walk(spec, stays), walk(spec, goes)
    assert (whole.counts > 0).all()
    assert (without.counts[0] == 0).tolist() == [False, True, False, False, False]
    assert (without.counts[0, 2:] >= whole.counts[0, 2:]).all()
    assert without.counts[0].sum() > whole.counts[0, [0, 2, 3, 4]].sum()
    assert walk(spec, [0.0, THRESHOLD, *[0.0] * 6]).counts.tolist() == whole.counts.tolist()


def test_plans_of_walks_are_inside_the_budget_by_the_network_that_is_cut() -> None:
    spec, rng = make_spec(), np.random.default_rng(0)
    walks = BatchedEpisodes(spec, 20)
    for _ in spec.steps:
        walks.step(rng.uniform(-1, 1, 20))
    for counts in walks.counts:
        smaller = prune(NET, GRAPH, top_mask(GRAPH, counts, rng.random(SIZES.sum())))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            smaller(EXAMPLE)
        assert counter.get_total_flops() / 2 <= 0.5 * COST.dense[0]
        for groups in INNER:
            assert len({bool(count) for count in counts[list(groups)]}) == 1


def test_walks_that_are_retraced_end_in_their_plans() -> None:
    spec, rng = make_spec(), np.random.default_rng(1)
    wished = SIZES * np.exp(rng.normal(0, 0.2, (30, len(SIZES))))
    for plan in wished:
        for groups in INNER:
            plan[list(groups)] *= rng.random() < 0.6
    plans = spec.finish(np.minimum(wished, SIZES))
    assert ((plans == 0) == (wished == 0)).all()
    seen, done = retrace(spec, plans)
    assert seen.shape == (len(ORDER), 30, spec.features.size)
    assert set(done[[1, 3, 6]].ravel().tolist()) == {STAY, GO}
    walks = BatchedEpisodes(spec, 30)
    for actions in done:
        walks.step(actions)
    assert (walks.counts == plans).mean() > 0.95
    assert ((walks.counts == 0) == (plans == 0)).all()


def test_what_is_seen_says_what_is_asked() -> None:
    spec = make_spec()
    names = ("asks_block", "block_rise", "block_saves_macs", "block_saves_params")
    assert spec.features.names[-4:] == names
    walks = BatchedEpisodes(spec, 2)
    seen = []
    for _ in spec.steps:
        seen.append(walks.observe()[0, -4:])
        walks.step(np.zeros(2))
    asked = np.array(seen)
    assert asked[:, 0].tolist() == [float(isinstance(step, str)) for step in ORDER]
    np.testing.assert_allclose(asked[[1, 3, 6], 1], np.array([0.05, 0.3, 2.0]) / 0.4, rtol=1e-6)
    inner = 2 * 8 * 16 * 9 * 64
    assert asked[1, 2] == pytest.approx(inner / COST.dense[0])
    assert not asked[[0, 2, 4, 5, 7]].any()


def test_channels_alone_see_and_do_what_they_always_did() -> None:
    spec = make_spec(names=("channels",))
    assert spec.features.names == ("nothing", *(f"dynamic_{i}" for i in range(DYNAMIC)))
    assert spec.features.asked is None
    assert spec.removable == ()
    assert (spec.finish(np.full((1, len(SIZES)), 0.3)) > 0).all()


def test_varied_plans_are_without_some_blocks() -> None:
    spec = make_spec()
    plans = perturbed_plans(spec, np.random.default_rng(0), 60)
    out = np.array([(plans[:, list(groups)] == 0).all(1) for groups in INNER])
    assert (out.mean(1) > 0.02).all()
    assert (out.mean(1) < 0.4).all()
    assert spec.projector.fits(plans).all()
    back = perturbed_plans(spec, np.random.default_rng(0), 60, start=np.where(np.arange(5) == 1, 0.0, SIZES))
    assert (back[:, 1] > 0).any()
    assert (back[:, 1] == 0).any()


def test_the_plan_without_blocks_that_is_foretold_to_lose_least() -> None:
    """Blocks go in the order of what they lose for what they save, for as long as that is foretold to help."""
    plan = without_blocks(make_spec("macs=0.6"), curves())
    assert (plan[[1]] == 0).all(), "the cheapest block goes first"
    assert plan[4] > 0, "the dearest stays"


def test_a_surrogate_tells_blocks_apart() -> None:
    counts = np.array([[8, 16, 12, 3, 16], [8, 0, 12, 3, 16], [8, 16, 0, 0, 8]])
    features = plan_features(counts, SIZES, INNER)
    assert features[:, 5:].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(np.exp(features[1, :5]), [1, FLOOR, 1, 1, 1])
    spec, rng = make_spec(), np.random.default_rng(0)
    plans = perturbed_plans(spec, rng, 60)

    def truth(plans: np.ndarray) -> np.ndarray:
        return np.asarray((plans[:, 1] == 0) * 1.0 - 0.2 * (plans[:, 4] == 0) + 0.1 * plans[:, 0] / 8)

    model = OneShotSurrogate(SIZES, curves().predict, spec.removable)
    model.fit([(plans[:40], truth(plans[:40]))])
    assert np.corrcoef(model.mean(plans[40:]), truth(plans[40:]))[0, 1] > 0.9


def test_a_table_of_an_episode_shows_blocks_that_are_out() -> None:
    walks = walk(make_spec(), [0.0, 1.0, 0.0])
    lines = episode_table(walks.spec, walks.counts[0], walks.group).splitlines()
    assert lines[2].split()[-4:] == ["16", "0", "block", "out"]
    assert lines[3].split()[-2:] == ["next", "-"]
