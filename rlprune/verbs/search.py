"""`rlprune search`: the main job."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.agents.collapse import collapse
from rlprune.agents.policy import save_policy
from rlprune.agents.preparation import make_evaluator, prepare
from rlprune.agents.search import search as run_search
from rlprune.allocators.sensitivity import number_of_evaluations
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander, parse_budgets
from rlprune.config import Search, as_dict, resolve
from rlprune.envs.reward import parse_reward
from rlprune.envs.walk import Task
from rlprune.errors import UserError
from rlprune.evaluator import Evaluation, Evaluator
from rlprune.files import write_text
from rlprune.finish import described, plan_of, prune_and_recover, save_plan
from rlprune.front import front
from rlprune.landing import Landing, open_landing
from rlprune.problem import Problem, inputs_of, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.report import write_run_report
from rlprune.run import RunFolder, default_folder, finished, read_result, write_result


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
        log = Log(run, problem, evaluator, given.evaluations, progress, alone=len(budgets) == 1)
        found = _settle(_find(given, problem, landing.landers, evaluator, log, reward), landing, evaluator, progress)
        after = (_finish if len(budgets) == 1 else _front)(given, problem, evaluator, found, folder, progress)
    except KeyboardInterrupt:
        progress.close(finished=False)
        raise KeyboardInterrupt(f"what was found so far is in {folder}; the same command continues") from None
    result = {"run": str(folder), "agent": given.agent, "evaluations": len(evaluator.seen)}
    result |= {**described(budgets, problem, time.perf_counter() - start), **after, **landing.result()}
    write_result(folder, result)
    write_run_report(folder)
    return result


@dataclass(frozen=True)
class Found:
    """For every budget the best plan, its loss and that of the base plan."""

    landers: list[Lander]
    counts: list[np.ndarray]
    losses: list[float]
    base_losses: list[float]


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
    log: "Log",
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
            lambda counts: evaluator(counts).loss,
            given.evaluations - log.sensitivities(),
            prepared.sensitivity.predict,
            given.agent,
            given.seed,
            starts,
            log.run.path / "tensorboard",
        )
    except KeyboardInterrupt:
        if log.best is not None:
            save_plan(problem, plan_of(problem, log.best, evaluator.scores, given), log.run.path)
        raise
    if remark := collapse(found.agent, prepared.tasks[0]):
        log.progress.note(remark)
    save_policy(found.agent, given.agent, prepared.tasks[0], log.run.path / "policy")
    return Found(landers, found.counts, found.losses, [evaluator(base).loss for base in prepared.bases])


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
    plan = plan_of(problem, found.counts[0], evaluator.scores, given)
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


class Log:
    """Takes every new evaluation to the run folder and to the screen, and those of the run folder to the evaluator.

    Args:
        run: the run folder.
        problem: for the costs.
        evaluator: reports here from now on.
        total: evaluations in all.
        progress: the screen.
        alone: there is one budget, so that there is one best plan.
    """

    def __init__(
        self,
        run: RunFolder,
        problem: Problem,
        evaluator: Evaluator,
        total: int,
        progress: Progress,
        alone: bool,
    ) -> None:
        self.alone, self.searching = alone, False
        self.run, self.problem, self.progress = run, problem, progress
        self.seen = evaluator.seen
        self.seen |= run.known()
        evaluator.on_new = self.add
        self.task: Task | None = None
        self.best: np.ndarray | None = None
        self.facts: dict[str, str] = {}
        self._best_value, self._best_loss = -np.inf, float("nan")
        self._start = time.perf_counter() - run.seconds()
        if self.seen:
            progress.note(f"continuing {run.path}: {len(self.seen)} evaluations are known")
        progress.stage("searching", total, len(self.seen))

    def begin(self, task: Task) -> None:
        """The sensitivities are measured, from now on plans of this task (or of more than one) come."""
        self.searching = True
        if not self.alone:
            return
        self.task = task
        for counts, evaluation in list(self.seen.items())[self.sensitivities() :]:
            self._compare(np.array(counts), evaluation)

    def sensitivities(self) -> int:
        """How many evaluations the sensitivities took: fewer than asked for where two cuts keep the same channels."""
        return sum(row["stage"] == "sensitivity" for row in self.run.episodes)

    def add(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        """Log one evaluation of (groups,) kept counts."""
        ratios = self.problem.cost.ratios(counts)
        if self.task is not None:
            self._compare(counts, evaluation)
        stage = "search" if self.searching else "sensitivity"
        best = None if self.best is None else self._best_loss
        self.run.log_plan(counts, evaluation, ratios, stage, best, time.perf_counter() - self._start)
        self.progress.update(len(self.run.episodes), **self.facts, kept=f"{100 * ratios[0]:.1f} % MACs")

    def _compare(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        assert self.task is not None
        value = float(self.task.value(counts[None], np.array([evaluation.loss]))[0])
        if value > self._best_value:
            self.best, self._best_value, self._best_loss = counts, value, evaluation.loss
            self.facts = {"best_loss": f"{evaluation.loss:.3f}", "accuracy": f"{100 * evaluation.accuracy:.1f} %"}
