"""`rlprune search`: the main job."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.agents.collapse import collapse
from rlprune.agents.policy import policy_of, save_agent
from rlprune.agents.preparation import make_evaluator, prepare
from rlprune.agents.reactions import reactions
from rlprune.agents.search import Tuning
from rlprune.agents.search import search as run_search
from rlprune.allocators.sensitivity import Sensitivity, number_of_evaluations
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander, parse_budgets
from rlprune.config import Search, as_dict, resolve
from rlprune.envs.reward import parse_reward
from rlprune.errors import UserError
from rlprune.evaluator import Evaluator
from rlprune.files import write_text
from rlprune.finish import described, plan_of, prune_and_recover, save_plan
from rlprune.front import front
from rlprune.landing import Landing, open_landing
from rlprune.page import write_run_page
from rlprune.problem import Problem, inputs_of, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.run import RunFolder, default_folder, finished, read_result, write_result
from rlprune.search_log import SearchLog
from rlprune.tuner import Tuner

ENDLESS = 10**6
"""Tunings that only the time limits."""


def search(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Search ratios with an agent, prune for real, fine-tune; continues an unfinished run of the same settings.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Search`.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Search, settings, config)
    budgets, reward = parse_budgets(given.budget), parse_reward(given.reward)
    if len(budgets) > 1 and reward[1]:
        raise UserError(
            f"--budget {given.budget} is a range; with --reward balance the agent itself decides how much goes"
        )
    folder = given.out or default_folder(given)
    RunFolder.check(folder, given)
    if finished(folder):
        progress.note(f"{folder} is finished already; this is its result")
        return read_result(folder)
    problem = open_problem(as_dict(given), progress)
    landing = open_landing(given, problem, budgets, progress, folder)
    _require_enough(given.evaluations, len(problem.graph.groups), len(budgets))
    if given.checkpoint is None:
        train_dense(problem, given, given.train_epochs, progress)
    evaluator = make_evaluator(problem, given.criterion, given.seed)
    # Only now, when nothing in the settings can be wrong any more, is a folder made.
    run = RunFolder(folder, given)
    start -= run.seconds()
    landing.save(folder)
    try:
        run.same_inputs(inputs_of(problem))
        tuner = Tuner(problem, evaluator.scores, given.seed, given.lr, given.batch_size)
        log = SearchLog(run, problem, evaluator, tuner, given, progress, alone=len(budgets) == 1)
        found = _settle(_find(given, problem, landing.landers, evaluator, log, reward), landing, evaluator, progress)
        after = (_finish if len(budgets) == 1 else _front)(given, problem, evaluator, found, folder, progress)
    except KeyboardInterrupt:
        progress.close(finished=False)
        raise KeyboardInterrupt(f"what was found so far is in {folder}; the same command continues") from None
    result = {"run": str(folder), "agent": given.agent, "evaluations": len(evaluator.seen), **_tunings(tuner, found)}
    result |= {**described(budgets, problem, time.perf_counter() - start), **after, **landing.result()}
    write_result(folder, result)
    write_run_page(folder)
    return result


def _tunings(tuner: Tuner, found: "Found") -> dict[str, Any]:
    """How many plans were tuned, and the losses of the chosen one and of the base plan after it."""
    if not tuner.seen:
        return {}
    chosen, base = tuner([found.counts[0], found.bases[0]])
    return {"tunings": len(tuner.seen), "tuned_loss": chosen.loss, "base_tuned_loss": base.loss}


@dataclass(frozen=True)
class Found:
    """For every budget the base plan, the best plan, and the losses of both; and the measured curves."""

    landers: list[Lander]
    bases: list[np.ndarray]
    counts: list[np.ndarray]
    losses: list[float]
    base_losses: list[float]
    sensitivity: Sensitivity


def _require_enough(evaluations: int, groups: int, budgets: int) -> None:
    needed = number_of_evaluations(groups) + 2 * budgets
    if evaluations < needed:
        raise UserError(
            f"--evaluations {evaluations} is too few: the sensitivities of {groups} groups and the first plans need "
            f"{needed} before the agent takes a step"
        )


def _find(
    given: Search,
    problem: Problem,
    landers: list[Lander],
    evaluator: Evaluator,
    log: SearchLog,
    reward: tuple[np.ndarray, bool],
) -> Found:
    """Search; the policy goes to the run folder, the best plan so far also when it is interrupted."""
    balance = reward[1]
    try:
        prepared = prepare(problem, landers, evaluator, *reward, log.begin)
        starts = [
            (base,) if balance else (base, uniform(lander))
            for base, lander in zip(prepared.bases, landers, strict=True)
        ]
        found = run_search(
            prepared.tasks,
            log.oneshot,
            given.evaluations - log.sensitivities(),
            prepared.sensitivity.predict,
            given.agent,
            given.seed,
            starts,
            log.run.path / "tensorboard",
            Tuning(log.tuned, given.tunings or ENDLESS, starts[0]) if given.tunings or given.time else None,
            log.over,
        )
    except KeyboardInterrupt:
        if log.best is not None:
            save_plan(problem, plan_of(problem, log.best, evaluator.scores, given), log.run.path)
        raise
    if remark := collapse(found.agent, prepared.tasks[0]):
        log.progress.note(remark)
    save_agent(found.agent, policy_of(found.agent, given, problem, prepared), log.run.path / "policy")
    write_text(log.run.path / "reactions.csv", reactions(found.agent, prepared.tasks).to_csv(index=False))
    log.stage = "final"
    losses = [evaluator(counts).loss for counts in found.counts]
    base_losses = [evaluator(base).loss for base in prepared.bases]
    return Found(landers, prepared.bases, found.counts, losses, base_losses, prepared.sensitivity)


def _settle(found: Found, landing: Landing, evaluator: Evaluator, progress: Progress) -> Found:
    """The same, with the plan that the final measurement of its latency leads to."""
    counts = landing.settle(found.counts[0], progress)
    if (counts == found.counts[0]).all():
        return found
    return replace(found, counts=[counts], losses=[evaluator(counts).loss])


def _finish(
    given: Search, problem: Problem, evaluator: Evaluator, found: Found, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Prune to the one plan, and fine-tune."""
    plan = plan_of(problem, found.counts[0], evaluator.scores, given, found.sensitivity)
    epochs = problem.data.finetune_epochs if given.finetune_epochs is None else given.finetune_epochs
    after = prune_and_recover(problem, plan, folder, epochs, given, progress)
    losses = {"search_loss": found.losses[0], "base_loss": found.base_losses[0]}
    return {"plan": str(folder / "plan.json"), **losses, **after}


def _front(
    given: Search, problem: Problem, evaluator: Evaluator, found: Found, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Write `front.csv`; which plan of it is pruned is for `replay` to say."""
    low, high = found.landers[0].budget.limits, found.landers[-1].budget.limits
    table = front(evaluator.seen, problem.cost, next(name for name in low if low[name] < high[name]))
    write_text(folder / "front.csv", table.to_csv(index=False, lineterminator="\n"))
    plans = []
    for lander, counts, loss, base in zip(found.landers, found.counts, found.losses, found.base_losses, strict=True):
        ratios = problem.cost.ratios(counts)
        plans.append(
            {
                "budget": str(lander.budget),
                "search_loss": loss,
                "search_accuracy": evaluator(counts).accuracy,
                "base_loss": base,
                "macs_ratio": float(ratios[0]),
                "params_ratio": float(ratios[1]),
            }
        )
    return {"front": str(folder / "front.csv"), "front_plans": len(table), "plans": plans}
