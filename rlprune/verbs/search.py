"""`rlprune search`: the main job."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.agents.policy import save_policy
from rlprune.agents.preparation import make_evaluator, prepare
from rlprune.agents.search import search as run_search
from rlprune.allocators.sensitivity import number_of_evaluations
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander, parse_budget
from rlprune.config import Search, as_dict, resolve
from rlprune.envs.reward import parse_reward
from rlprune.envs.walk import Task
from rlprune.errors import UserError
from rlprune.evaluator import Evaluation, Evaluator
from rlprune.finish import described, plan_of, prune_and_recover, save_plan
from rlprune.problem import Problem, open_problem, train_dense
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
    budget, (weights, balance) = parse_budget(given.budget), parse_reward(given.reward)
    folder = given.out or default_folder(given)
    RunFolder.check(folder, given)
    if finished(folder):
        progress.note(f"{folder} is finished already; this is its result")
        return read_result(folder)
    problem = open_problem(as_dict(given), progress)
    lander = Lander(problem.cost, budget, given.round_to, given.min_channels)
    _require_enough(given.evaluations, len(problem.graph.groups))
    if given.checkpoint is None:
        train_dense(problem, given, given.train_epochs, progress)
    evaluator = make_evaluator(problem, given.criterion, given.seed)
    # Only now, when nothing in the settings can be wrong any more, is a folder made.
    run = RunFolder(folder, given)
    start -= run.seconds()
    try:
        run.same_inputs({"dense weights": problem.weights(), "images": problem.data.fingerprint})
        log = Log(run, problem, evaluator, given.evaluations, progress)
        found = _find(given, problem, lander, evaluator, log, (weights, balance))
        plan = plan_of(problem, found["counts"], evaluator.scores, given)
        epochs = problem.data.finetune_epochs if given.finetune_epochs is None else given.finetune_epochs
        after = prune_and_recover(problem, plan, folder, epochs, given, progress)
    except KeyboardInterrupt:
        progress.close(finished=False)
        raise KeyboardInterrupt(f"what was found so far is in {folder}; the same command continues") from None
    result = {
        "run": str(folder),
        "plan": str(folder / "plan.json"),
        "agent": given.agent,
        "evaluations": len(evaluator.seen),
        "search_loss": found["loss"],
        "base_loss": found["base_loss"],
        **described(budget, problem, time.perf_counter() - start),
        **after,
    }
    write_result(folder, result)
    write_run_report(folder)
    return result


def _require_enough(evaluations: int, groups: int) -> None:
    needed = number_of_evaluations(groups) + 2
    if evaluations < needed:
        raise UserError(
            f"--evaluations {evaluations} is too few: the sensitivities of {groups} groups and the first plans need "
            f"{needed} before the agent takes a step"
        )


def _find(
    given: Search, problem: Problem, lander: Lander, evaluator: Evaluator, log: "Log", reward: tuple[np.ndarray, bool]
) -> dict[str, Any]:
    """Search; the policy goes to the run folder, the best plan so far also when it is interrupted."""
    weights, balance = reward
    try:
        prepared = prepare(problem, lander, evaluator, weights, balance, log.begin)
        starts = (prepared.base,) if balance else (prepared.base, uniform(lander))
        found = run_search(
            prepared.task,
            lambda counts: evaluator(counts).loss,
            given.evaluations - log.sensitivities(),
            given.agent,
            given.seed,
            starts,
            log.run.path / "tensorboard",
        )
    except KeyboardInterrupt:
        if log.best is not None:
            save_plan(problem, plan_of(problem, log.best, evaluator.scores, given), log.run.path)
        raise
    save_policy(found.agent, given.agent, prepared.task, log.run.path / "policy")
    return {"counts": found.counts, "loss": found.loss, "base_loss": evaluator(prepared.base).loss}


class Log:
    """Takes every new evaluation to the run folder and to the screen, and those of the run folder to the evaluator.

    Args:
        run: the run folder.
        problem: for the costs.
        evaluator: reports here from now on.
        total: evaluations in all.
        progress: the screen.
    """

    def __init__(self, run: RunFolder, problem: Problem, evaluator: Evaluator, total: int, progress: Progress) -> None:
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
        """The sensitivities are measured, from now on plans of this task come."""
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
        stage = "sensitivity" if self.task is None else "search"
        best = None if self.best is None else self._best_loss
        self.run.log_plan(counts, evaluation, ratios, stage, best, time.perf_counter() - self._start)
        self.progress.update(len(self.run.episodes), **self.facts, kept=f"{100 * ratios[0]:.1f} % MACs")

    def _compare(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        assert self.task is not None
        value = float(self.task.value(counts[None], np.array([evaluation.loss]))[0])
        if value > self._best_value:
            self.best, self._best_value, self._best_loss = counts, value, evaluation.loss
            self.facts = {"best_loss": f"{evaluation.loss:.3f}", "accuracy": f"{100 * evaluation.accuracy:.1f} %"}
