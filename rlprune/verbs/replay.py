"""`rlprune replay`."""

import time
from pathlib import Path
from typing import Any

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
from rlprune.problem import open_problem, train_dense
from rlprune.progress import Progress
from rlprune.run import write_result


def replay(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Walk a run's policy on another checkpoint or budget: no search, only the sensitivities are measured.

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
    budget, (weights, balance) = parse_budget(there.budget), parse_reward(there.reward)
    source = given.source.resolve()
    out = check_new(given.out or source.with_name(f"{source.name}-replay-{budget}"))
    problem = open_problem(as_dict(there), progress)
    lander = Lander(problem.cost, budget, there.round_to, there.min_channels)
    if there.checkpoint is None:
        train_dense(problem, there, there.train_epochs, progress)
    progress.stage("measuring sensitivities", number_of_evaluations(len(problem.graph.groups)) + 2)
    seen: dict[tuple[int, ...], Evaluation] = {}
    evaluator = make_evaluator(problem, there.criterion, there.seed, seen, lambda *_: progress.update(len(seen)))
    prepared = prepare(problem, lander, evaluator, weights, balance)
    counts = walk_policy(load_policy(given.source / "policy", prepared.task), prepared.task)
    loss, base_loss = evaluator(counts).loss, evaluator(prepared.base).loss
    plan = plan_of(problem, counts, evaluator.scores, there)
    after = prune_and_recover(problem, plan, out, given.finetune_epochs, there, progress)
    result = {
        "run": str(out),
        "plan": str(out / "plan.json"),
        "agent": there.agent,
        "evaluations": len(seen),
        "search_loss": loss,
        "base_loss": base_loss,
        **described(budget, problem, time.perf_counter() - start),
        **after,
    }
    write_result(out, result)
    return result
