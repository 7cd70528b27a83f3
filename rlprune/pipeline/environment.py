"""From the settings of a search to an environment in which any agent can walk the network."""

import gymnasium as gym
import numpy as np

from rlprune.agents.search.setup import make_evaluator, prepare
from rlprune.config.commands import Search
from rlprune.config.networks import each_network
from rlprune.config.resolve import as_dict
from rlprune.cost.budget import Budget, parse_budgets
from rlprune.envs.channel_pruning import ChannelPruningEnv
from rlprune.envs.decisions.base import measured_blocks
from rlprune.envs.registration import ENVIRONMENT_ID
from rlprune.envs.reward import parse_reward
from rlprune.errors import UserError
from rlprune.methods.allocators.base_plans import evaluations_before_search
from rlprune.pipeline.decisions import decisions_for
from rlprune.pipeline.measured_budget import open_budget
from rlprune.pipeline.plans import plan_of
from rlprune.plans.plan import PruningPlan
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import train_dense
from rlprune.workloads.workload import open_workload


def open_environment(
    given: Search, progress: Progress, render_mode: str | None = None
) -> gym.Env[np.ndarray, np.ndarray]:
    """The environment that the agent of a search walks in, with real evaluations at the end of every episode.

    Args:
        given: the settings.
        progress: told how far it is.
        render_mode: see `rlprune.envs.channel_pruning.ChannelPruningEnv`.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    if render_mode not in (None, *(modes := ChannelPruningEnv.metadata["render_modes"])):
        raise UserError(f"render_mode is {render_mode!r}: expected {' or '.join(modes)}, or none")
    budget, reward = _only_budget(given), parse_reward(given.reward)
    workload = open_workload(as_dict(given), progress)
    measured_budget = open_budget(given, workload, [budget], progress)
    train_dense(workload, given, progress)
    evaluator = make_evaluator(workload, given.criterion, given.seed, tell=progress.note, repair=given.repair)
    decisions = decisions_for(given.decisions, [workload.cost], progress if given.decide else None)
    needed = evaluations_before_search(len(workload.graph.groups), budget)
    needed += len(measured_blocks(decisions, workload.cost))
    progress.stage("measuring sensitivities", needed)
    evaluator.on_new = lambda counts, evaluation: progress.update(len(evaluator.seen))
    prepared = prepare(workload, measured_budget.projectors, evaluator, *reward, decisions=decisions)
    evaluator.on_new = None

    # Functions, and no methods: Gymnasium copies what it is given deeply, and a function is copied as it is.
    def score(plans: np.ndarray) -> np.ndarray:
        return np.array([evaluation.loss for evaluation in evaluator.evaluate(list(plans))])

    def planned(counts: np.ndarray) -> PruningPlan:
        return plan_of(workload, counts, evaluator.scores, given, prepared.sensitivity)

    env = gym.make(ENVIRONMENT_ID, spec=prepared.specs[0], score=score, plan_of=planned, render_mode=render_mode)
    env.action_space.seed(given.seed)
    return env


def _only_budget(given: Search) -> Budget:
    """The budget, where an environment is asked for one network under one budget."""
    if given.mode == "runtime":
        raise UserError("--mode runtime: an environment is that of one plan for all images, --mode static")
    if len(each_network(given)) > 1:
        raise UserError(f"--model {given.model} are several networks: an environment is that of one of them")
    budgets = parse_budgets(given.budget)
    if len(budgets) > 1:
        raise UserError(f"--budget {given.budget} is a range: an environment has one budget, such as {budgets[0]}")
    return budgets[0]
