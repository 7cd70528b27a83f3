"""`rlprune replay`."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.agents.policy import load_policy, walk_policy
from rlprune.agents.preparation import make_evaluator, prepare
from rlprune.allocators.sensitivity import number_of_evaluations
from rlprune.budget import Lander, parse_budget
from rlprune.config import Replay, Search, as_dict, resolve
from rlprune.envs.reward import parse_reward
from rlprune.errors import UserError
from rlprune.evaluator import Evaluation
from rlprune.files import check_new
from rlprune.finish import described, plan_of, prune_and_recover
from rlprune.front import front
from rlprune.journal import Known
from rlprune.plan import text_to_key
from rlprune.problem import inputs_of, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.run import known_in, write_result


def replay(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Walk a run's policy on another checkpoint or budget: no search, only the sensitivities are measured.

    On the network and the images of the run even these are known. The better of the policy's plan, the base plan and,
    there, the run's nearest plans is taken.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Replay`.

    Raises:
        UserError: whatever cannot be used.
    """
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Replay, settings, config)
    if not (given.source / "policy" / "policy.json").is_file():
        raise UserError(f"{given.source} holds no policy: expected a run folder whose search has ended")
    searched = resolve(Search, {}, given.source / "config.yaml")
    changed = {key: value for key, value in as_dict(given).items() if value not in (None, False) and key != "source"}
    there = resolve(Search, as_dict(searched) | changed)
    if given.budget is None and isinstance(there.budget, str) and ":" in there.budget:
        raise UserError(f"--budget is missing: the policy in {given.source} serves {there.budget}, say which one")
    budget, (weights, balance) = parse_budget(there.budget), parse_reward(there.reward)
    source = given.source.resolve()
    out = check_new(given.out or source.with_name(f"{source.name}-replay-{budget}"))
    problem = open_problem(as_dict(there), progress)
    lander = Lander(problem.cost, budget, there.round_to, there.min_channels)
    if there.checkpoint is None:
        train_dense(problem, there, there.train_epochs, progress)
    same = (searched.criterion, searched.seed) == (there.criterion, there.seed)
    known = known_in(given.source, inputs_of(problem)) if same else {}
    seen, measured = dict(known), 0

    def count(counts: np.ndarray, evaluation: Evaluation) -> None:
        nonlocal measured
        measured += 1
        progress.update(measured)

    probes = 0 if known else number_of_evaluations(len(problem.graph.groups))
    progress.stage("walking the network", probes + 2)
    evaluator = make_evaluator(problem, there.criterion, there.seed, seen, count)
    prepared = prepare(problem, [lander], evaluator, weights, balance)
    task, base = prepared.tasks[0], prepared.bases[0]
    walked = walk_policy(load_policy(given.source / "policy", task), task)
    plans = np.array([walked, base, *_neighbours(known, lander)])
    values = task.value(plans, np.array([evaluator(counts).loss for counts in plans]))
    counts = plans[int(np.argmax(values))]
    plan = plan_of(problem, counts, evaluator.scores, there)
    after = prune_and_recover(problem, plan, out, given.finetune_epochs, there, progress)
    result = {
        "run": str(out),
        "plan": str(out / "plan.json"),
        "agent": there.agent,
        "evaluations": measured,
        "search_loss": evaluator(counts).loss,
        "policy_loss": evaluator(walked).loss,
        "base_loss": evaluator(base).loss,
        **described([budget], problem, time.perf_counter() - start),
        **after,
    }
    write_result(out, result)
    return result


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
