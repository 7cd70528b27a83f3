"""`rlprune compare`."""

import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.agents.contest import Bank, Entry
from rlprune.agents.preparation import make_evaluator
from rlprune.agents.rivals import find_method, needed
from rlprune.budget import Budget, Lander, parse_budget
from rlprune.config import Compare, Search, as_dict, resolve
from rlprune.curves import draw_comparison
from rlprune.errors import UserError
from rlprune.evaluator import Evaluation
from rlprune.files import read_content, room_for, write_json
from rlprune.finish import described, recover
from rlprune.landing import open_landing
from rlprune.ledger import Cell, Ledger
from rlprune.lock import locked
from rlprune.plan import counts_to_text, text_to_key, top_mask
from rlprune.problem import Problem, inputs_of, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.run import RunFolder, folder_of
from rlprune.standings import standings, verdict
from rlprune.training import evaluate
from rlprune.words import heading

FORMAT = "rlprune-comparison"
VERSION = 1


def compare(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Let search methods compete on one evaluator, one budget and one number of evaluations; continues where it ended.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Compare`.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Compare, settings, config)
    budget = parse_budget(given.budget)
    folder = given.out or folder_of(given, "compare", given.model, given.data, given.budget)
    RunFolder.check(folder, given)
    if (folder / "comparison.json").is_file():
        progress.note(f"{folder} is finished already; this is its result")
        return read_content(folder / "comparison.json", FORMAT, VERSION)
    for name in given.names:
        find_method(name)
    problem = open_problem(as_dict(given), progress)
    _require_enough(given, len(problem.graph.groups), budget)
    landing = open_landing(given, problem, [budget], progress, folder)
    lander = landing.landers[0]
    if given.checkpoint is None:
        train_dense(problem, _as_search(given, given.seed), given.train_epochs, progress)
    bank = Bank(make_evaluator(problem, given.criterion, given.seed, tell=progress.note))
    run = RunFolder(folder, given)
    with locked(folder), room_for(folder):
        run.same_inputs(inputs_of(problem))
        landing.save(folder)
        _remember(run, problem, bank)
        ledger = Ledger(folder)
        start -= sum(bank.seconds.values()) + sum(cell.own_seconds for cell in ledger.cells)
        try:
            _contest(given, problem, lander, bank, ledger, progress)
        except KeyboardInterrupt:
            progress.close(finished=False)
            raise KeyboardInterrupt(f"what has ended so far is in {folder}; the same command continues") from None
        result = {"run": str(folder), **described([budget], problem, time.perf_counter() - start)}
        result |= _outcome(given, problem, ledger)
        draw_comparison(ledger.curves, given.evaluations, heading(result), folder)
        write_json(folder / "comparison.json", {"format": FORMAT, "version": VERSION, **result})
    return result


def _outcome(given: Compare, problem: Problem, ledger: Ledger) -> dict[str, Any]:
    """What the cells say, and how good the dense network is on the test images."""
    _, dense = evaluate(problem.module, problem.data.test, device=problem.device)
    records = standings(ledger.cells)
    facts = {"evaluations": given.evaluations, "seeds": given.seeds, "dense_accuracy": dense}
    return facts | {"methods": records, "verdict": verdict(records)}


def _require_enough(given: Compare, groups: int, budget: Budget) -> None:
    hungriest = max(given.names, key=lambda name: needed(name, groups, budget))
    if given.evaluations < (least := needed(hungriest, groups, budget)):
        raise UserError(
            f"--evaluations {given.evaluations} is too few for {hungriest}: the sensitivities of {groups} groups and "
            f"the first plans need {least}"
        )


def _as_search(given: Compare, seed: int) -> Search:
    """The search that a run of an agent is, with its seed."""
    shared = {entry.name: getattr(given, entry.name) for entry in fields(Search) if hasattr(given, entry.name)}
    return Search(**shared | {"seed": seed})


def _remember(run: RunFolder, problem: Problem, bank: Bank) -> None:
    """Take every evaluation to the log of the run folder, and those of the log to the bank."""
    bank.evaluator.seen |= run.episodes.known()
    bank.seconds |= {text_to_key(row["counts"]): float(row["seconds"]) for row in run.episodes.rows}

    def log(counts: np.ndarray, evaluation: Evaluation, seconds: float) -> None:
        run.episodes.add(counts, evaluation, problem.cost.ratios(counts), "compare", None, seconds)

    bank.on_new = log


def _contest(given: Compare, problem: Problem, lander: Lander, bank: Bank, ledger: Ledger, progress: Progress) -> None:
    """Every method with every seed; those that have ended in an earlier run are in the ledger already."""
    if bank.seconds:
        total = len(given.names) * given.seeds
        progress.note(f"continuing {ledger.folder}: {len(ledger.cells)} of {total} runs have ended")

    def told(entry: Entry) -> None:
        best = {} if entry.best is None else {"best_loss": f"{entry.result.loss:.3f}"}
        progress.update(len(entry.seen), **best)

    for seed in range(given.seed, given.seed + given.seeds):
        for name in given.names:
            if (name, seed) in ledger:
                continue
            progress.stage(f"{name}, seed {seed}", given.evaluations)
            entry = Entry(bank, problem, lander, name, seed, given.evaluations, told)
            remark = find_method(name)(entry)
            if remark:
                progress.note(f"{name}, seed {seed}: {remark}")
            state = ledger.folder / "state" / f"{name}-{seed}.pt"
            ledger.add(_cell(given, entry, remark, state, progress), entry.curve)
            state.unlink(missing_ok=True)


def _cell(given: Compare, entry: Entry, remark: str, state: Path, progress: Progress) -> Cell:
    """The result of a run; here, once, the test images are looked at."""
    assert entry.best is not None
    (seconds, own), problem = entry.times(), entry.problem
    mask = top_mask(problem.graph, entry.best, entry.scores)
    after = recover(problem, mask, given.finetune_epochs, _as_search(given, entry.seed), state, progress)
    macs, params = problem.cost.ratios(entry.best)
    return Cell(
        entry.method,
        entry.seed,
        entry.result.loss,
        entry.result.accuracy,
        after.oneshot,
        after.tuned,
        len(entry.seen),
        seconds,
        own,
        float(macs),
        float(params),
        remark,
        counts_to_text(entry.best),
    )
