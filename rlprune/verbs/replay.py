"""`rlprune replay`."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.activity import channel_activity
from rlprune.agents.home import HERE, Home, nearest_home
from rlprune.agents.policy import Policy, find_policy, load_policy
from rlprune.agents.preparation import base_wishes, lay_out, make_evaluator
from rlprune.agents.refine import refine
from rlprune.budget import Budget, Lander, parse_budget
from rlprune.choice import CHOICES
from rlprune.config import Replay, Search, as_dict, resolve
from rlprune.envs.reward import parse_reward
from rlprune.envs.walk import Task
from rlprune.errors import UserError
from rlprune.evaluator import Evaluator
from rlprune.files import check_new
from rlprune.finish import described, plan_of, prune_and_recover
from rlprune.front import front
from rlprune.journal import Known
from rlprune.landing import open_landing
from rlprune.models.named import require_named
from rlprune.plan import plan_key, text_to_key
from rlprune.problem import Problem, inputs_of, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.run import known_in, write_result
from rlprune.several import settings_for

OF_IMAGES = ("image_size", "mean", "std", "search_images", "calibration_images", "train_epochs", "checkpoint")
OF_NETWORK = (*CHOICES, "checkpoint")
MEANING = "0: every group has its like there; 1: they differ as much as the groups there do among themselves"


def replay(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Walk a policy on another checkpoint, budget, data set or network: no search, and no evaluation unless allowed.

    Sensitivities come from the network that the policy was trained on. Where evaluations are allowed they measure the
    policy's plan, the sensitivity rule's and plans around the better one. What the run itself has measured on the same
    network and images costs nothing.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Replay`.

    Raises:
        UserError: whatever cannot be used.
    """
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Replay, settings, config)
    policy = load_policy(find_policy(given.source))
    trained = settings_for(policy.settings, given.model, given.model_args)
    there = _settings(given, trained)
    if given.model is None:
        require_named(there.model, given.source)
    budget = parse_budget(there.budget)
    out = check_new(given.out or _beside(given.source, budget))
    problem = open_problem(as_dict(there), progress)
    landing = open_landing(there, problem, [budget], progress)
    if there.checkpoint is None:
        train_dense(problem, there, there.train_epochs, progress)
    home, same = nearest_home(policy.homes, problem), _asks_the_same(there, trained)
    known = known_in(given.source, inputs_of(problem)) if same else {}
    progress.stage("walking the network", given.evaluations or None)
    evaluator = make_evaluator(problem, there.criterion, there.seed, dict(known), progress.note)
    evaluator.on_new = lambda counts, evaluation: progress.update(len(evaluator.seen) - len(known))
    found = _find(given, policy, home, there, problem, evaluator, landing.landers[0], known)
    found = replace(found, counts=landing.settle(found.counts, progress))
    measured = home.sensitivity if same and home.kind(problem) == HERE else None
    plan = plan_of(problem, found.counts, evaluator.scores, there, measured)
    after = prune_and_recover(problem, plan, out, given.finetune_epochs, there, progress)
    plans = (found.counts, found.walked, found.base)
    losses = [getattr(evaluator.seen.get(plan_key(counts)), "loss", None) for counts in plans]
    result = {
        "run": str(out),
        "plan": str(out / "plan.json"),
        "agent": there.agent,
        "evaluations": len(evaluator.seen) - len(known),
        **dict(zip(("search_loss", "policy_loss", "base_loss"), losses, strict=True)),
        "home": {"kind": home.kind(problem), "distance": round(found.distance, 3), "meaning": MEANING},
        **described([budget], problem, time.perf_counter() - start),
        **after,
        **landing.result(),
    }
    write_result(out, result)
    landing.save(out)
    return result


@dataclass(frozen=True)
class Found:
    """The plan that is taken, the policy's and the rule's, and how far from home it is."""

    counts: np.ndarray
    walked: np.ndarray
    base: np.ndarray
    distance: float


def _find(
    given: Replay,
    policy: Policy,
    home: Home,
    there: Search,
    problem: Problem,
    evaluator: Evaluator,
    lander: Lander,
    known: Known,
) -> Found:
    """Walk with borrowed curves, then spend the evaluations."""
    task = _task(problem, policy, home, evaluator, lander, there)
    same = home.is_same_architecture(problem.graph)
    seen = replace(task, features=home.familiar(task.features)) if same else task
    walked, base = policy.walk(seen), task.base_plan()
    plans = [walked, base, *_neighbours(known, lander)]
    counts = refine(task, plans, evaluator, given.evaluations, there.seed)
    return Found(counts, walked, base, home.distance(task.features))


def _settings(given: Replay, home: dict[str, Any]) -> Search:
    """The settings of the search with what is given in their place; what belongs to another network is left out."""
    mine = {key: value for key, value in as_dict(given).items() if value is not None and value is not False}
    mine = {key: value for key, value in mine.items() if key in home and key not in ("evaluations", "out")}
    foreign: tuple[str, ...] = ()
    if mine.get("data", home["data"]) != home["data"]:
        foreign += OF_IMAGES
    if any(mine.get(key, home[key]) != home[key] for key in ("model", "model_args")):
        foreign += OF_NETWORK + (("model_args",) if "model" in mine else ())
    there = resolve(Search, {key: value for key, value in home.items() if key not in (*foreign, "out")} | mine)
    if given.budget is None and isinstance(there.budget, str) and ":" in there.budget:
        raise UserError(f"--budget is missing: the policy in {given.source} serves {there.budget}, say which one")
    if given.checkpoint is None and there.checkpoint is not None and not there.checkpoint.is_file():
        raise UserError(f"--checkpoint is missing: that of the search, {there.checkpoint}, is not here")
    return there


def _beside(source: Path, budget: Budget) -> Path:
    source = source.resolve()
    return source.with_name(f"{source.name}-replay-{budget}")


def _asks_the_same(there: Search, home: dict[str, Any]) -> bool:
    """Whether a plan has the same loss as in the search, given the same weights and images."""
    here = as_dict(there)
    return all(here[key] == home[key] for key in ("model", "model_args", "criterion", "seed", *CHOICES))


def _task(problem: Problem, policy: Policy, home: Home, evaluator: Evaluator, lander: Lander, there: Search) -> Task:
    """What is walked, with the network's own curves or borrowed ones and the kind of base plan that was good there."""
    activity = channel_activity(problem.module, problem.graph, problem.calibration()[0])
    curves, reward = home.borrow(problem.graph, problem.cost), parse_reward(there.reward)
    wished = base_wishes(curves, lander, reward[0] if reward[1] else None)[home.even]
    return lay_out(problem, lander, evaluator.scores, activity, curves, *reward, wished, policy.reach)


def _neighbours(known: Known, lander: Lander) -> np.ndarray:
    """The plans of the run's front just below and above the budget, landed on it."""
    if not known:
        return np.empty((0, len(lander.sizes)), dtype=np.int64)
    limits = lander.budget.limits
    resource = next(iter(limits), "macs")
    table = front(known, lander.cost, resource)
    place = int(np.searchsorted(table[f"{resource}_ratio"], limits.get(resource, 1.0), side="right"))
    nearest = table["counts"].iloc[max(place - 1, 0) : place + 1]
    return lander.land(np.array([text_to_key(text) for text in nearest], dtype=float))
