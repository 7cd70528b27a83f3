"""`rlprune search`: the main job."""

import time
from collections.abc import Sequence
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
from rlprune.board import Board
from rlprune.budget import Lander, parse_budgets
from rlprune.config import Search, as_dict, resolve
from rlprune.envs.reward import parse_reward
from rlprune.envs.walk import Task
from rlprune.errors import UserError
from rlprune.evaluator import Evaluation, Evaluator
from rlprune.files import write_text
from rlprune.finish import described, plan_of, prune_and_recover, save_plan
from rlprune.front import front
from rlprune.journal import Journal
from rlprune.landing import Landing, open_landing
from rlprune.page import write_run_page
from rlprune.plan import plan_key, text_to_key
from rlprune.problem import Problem, inputs_of, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.run import RunFolder, default_folder, finished, read_result, write_result
from rlprune.tuner import Tuner
from rlprune.words import seconds

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
        log = Log(run, problem, evaluator, tuner, given, progress, alone=len(budgets) == 1)
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


class Log:
    """Takes everything measured to the run folder and to the screen, and what the run folder knows to who measures.

    Args:
        run: the run folder.
        problem: for the costs.
        evaluator, tuner: report here from now on.
        given: how many evaluations and tunings there may be, and how long they may take.
        progress: the screen.
        alone: there is one budget, so that there is one best plan.

    Attributes:
        stage: what evaluations are made for: sensitivity, search, or final.
        best: (groups,) the best plan so far, after tuning where plans are tuned.
    """

    def __init__(
        self,
        run: RunFolder,
        problem: Problem,
        evaluator: Evaluator,
        tuner: Tuner,
        given: Search,
        progress: Progress,
        alone: bool,
    ) -> None:
        self.alone, self.stage = alone, "sensitivity"
        self.run, self.problem, self.progress, self.given = run, problem, progress, given
        self.evaluator, self.tuner = evaluator, tuner
        evaluator.seen |= run.episodes.known()
        tuner.seen |= run.tunings.known()
        evaluator.on_new, tuner.on_new = self.add, self.add_tuned
        self.board = Board(run.path / "tensorboard", problem.graph)
        self.task: Task | None = None
        self.best: np.ndarray | None = None
        self.facts: dict[str, str] = {}
        self._best_value, self._best_loss = -np.inf, float("nan")
        self._tuning = False
        # What an interrupted search had measured, until it is asked for again.
        self._known = [{text_to_key(row["counts"]) for row in run.episodes.rows if row["stage"] == "search"}]
        self._known.append(set(run.tunings.known()))
        self._start = time.perf_counter() - run.seconds()
        if evaluator.seen:
            progress.note(f"continuing {run.path}: {len(evaluator.seen)} evaluations are known")
        progress.stage("searching", given.evaluations, len(evaluator.seen))

    def begin(self, task: Task) -> None:
        """The sensitivities are measured, from now on plans of this task (or of more than one) come."""
        self.stage = "search"
        if not self.alone:
            return
        self.task = task
        for counts, evaluation in list(self.evaluator.seen.items())[self.sensitivities() :]:
            self._compare(np.array(counts), evaluation)

    def sensitivities(self) -> int:
        """How many evaluations the sensitivities took: fewer than asked for where two cuts keep the same channels."""
        return sum(row["stage"] == "sensitivity" for row in self.run.episodes.rows)

    def oneshot(self, plans: Sequence[np.ndarray]) -> list[float]:
        """One-shot losses of plans, each (groups,) kept counts."""
        return self._losses([self.evaluator(counts) for counts in plans], plans, self._known[0])

    def tuned(self, plans: Sequence[np.ndarray]) -> list[float]:
        """Losses of plans after a brief fine-tuning."""
        if not self._tuning:
            self._tuning, self._best_value = True, -np.inf
            self.progress.stage("tuning plans briefly", self.given.tunings, len(self.tuner.seen))
        found = self.tuner(plans)
        for counts, evaluation in zip(plans, found, strict=True):
            self._compare(counts, evaluation)
        return self._losses(found, plans, self._known[1])

    @staticmethod
    def _losses(found: list[Evaluation], plans: Sequence[np.ndarray], known: set[tuple[int, ...]]) -> list[float]:
        known.difference_update(map(plan_key, plans))
        return [evaluation.loss for evaluation in found]

    def over(self, share: float) -> bool:
        """Whether a share of the time has passed; an interrupted search first comes to where it was."""
        if self.given.time is None or self._known[self._tuning]:
            return False
        if self._known[1]:
            return True
        return time.perf_counter() - self._start > share * seconds(self.given.time)

    def add(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        """Log one evaluation of (groups,) kept counts."""
        ratios = self.problem.cost.ratios(counts)
        if self.stage == "final":
            self._enter(self.run.episodes, counts, evaluation, self.stage, None)
            return
        if self.task is not None:
            self._compare(counts, evaluation)
        self._enter(self.run.episodes, counts, evaluation, self.stage, self._lowest())
        self.board.add(len(self.run.episodes), evaluation, ratios, self.best, self._best_loss)
        self._tell(len(self.run.episodes), ratios)

    def add_tuned(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        """Log what a brief fine-tuning of (groups,) kept counts has left."""
        self._compare(counts, evaluation)
        self._enter(self.run.tunings, counts, evaluation, "tuning", self._lowest())
        self._tell(len(self.run.tunings), self.problem.cost.ratios(counts))

    def _lowest(self) -> float | None:
        return None if self.best is None else self._best_loss

    def _enter(
        self, journal: Journal, counts: np.ndarray, evaluation: Evaluation, stage: str, best: float | None
    ) -> None:
        seconds = time.perf_counter() - self._start
        journal.add(counts, evaluation, self.problem.cost.ratios(counts), stage, best, seconds)

    def _tell(self, done: int, ratios: np.ndarray) -> None:
        self.progress.update(done, **self.facts, kept=f"{100 * ratios[0]:.1f} % MACs")

    def _compare(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        assert self.task is not None
        value = float(self.task.value(counts[None], np.array([evaluation.loss]))[0])
        if value > self._best_value:
            self.best, self._best_value, self._best_loss = counts, value, evaluation.loss
            self.facts = {"best_loss": f"{evaluation.loss:.3f}", "accuracy": f"{100 * evaluation.accuracy:.1f} %"}
