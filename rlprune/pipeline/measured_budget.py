"""Budgets with what has to be measured for them: the latency of a network, and the multiple of channels it likes."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from rlprune.config.commands import Compare, Prune, Search
from rlprune.cost.budget import LATENCY, Budget
from rlprune.cost.exact import Cost
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.latency.alignment import best_multiple
from rlprune.latency.backends import Backend, device_for
from rlprune.latency.cost import measure_networks, timed_cost
from rlprune.latency.layers import Layer, find_layers
from rlprune.latency.model import TimedCost
from rlprune.latency.timing import noise, summarise
from rlprune.utils.files import FileFormat
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import shape_of
from rlprune.workloads.workload import Workload

LATENCY_FORMAT = FileFormat("rlprune-latency")
LIMIT = 0.05
"""How far the final measurement may be from the budget before the model is corrected."""
TRIES = 4
Measured = dict[str, Any]


@dataclass
class MeasuredBudget:
    """Landers for the budgets of a command, and the measurements that stand behind them.

    Attributes:
        projectors: one a budget.
        backend: how the network is run where its latency counts.
        facts: what was measured, as `latency.json` of a run folder keeps it; empty where nothing was.
        measured: of the final plan, once there is one.
    """

    projectors: list[BudgetProjector]
    backend: Backend
    network: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    measured: Measured = field(default_factory=dict)
    _corrections: int = field(default=0, init=False)

    def save(self, folder: Path) -> None:
        """Keep what was measured, so that the run continues with the very same numbers."""
        if self.facts:
            LATENCY_FORMAT.write(folder / "latency.json", self.facts)

    def correct(self, counts: np.ndarray, folder: Path, progress: Progress) -> BudgetProjector:
        """The only budget with its latency model corrected by one more network, which is measured and remembered.

        Args:
            counts: (groups,) kept counts of a plan that a search has come to.
            folder: of the run.
            progress: told of the correction.
        """
        factors: list[float] = self.facts["corrections"]
        if self._corrections == len(factors):
            factors.append(_by_forecast(self.projectors[0], counts, self._measure(counts)))
            self.save(folder)
        factor, self._corrections = factors[self._corrections], self._corrections + 1
        progress.note(
            f"the best plan so far takes {100 * factor:.0f} % of what the latency model says: it is corrected"
        )
        # Where the truth is out of reach, the final measurement says so.
        with suppress(UserError):
            self.projectors[0] = _corrected(self.projectors[0], factor)
        return self.projectors[0]

    def settle(self, counts: np.ndarray, progress: Progress) -> np.ndarray:
        """The final plan of the only budget: measured, and projected anew where the model was wrong by too much.

        Args:
            counts: (groups,) kept counts, projected by the model.
            progress: told what is going on.
        """
        projector = self.projectors[0]
        if len(self.projectors) > 1 or not projector.budget.timed:
            return counts
        progress.stage("measuring the plan")
        plan, self.measured, told = settle(projector, counts, self._measure)
        for line in told:
            progress.note(line)
        return plan

    def result(self) -> dict[str, Any]:
        """What a command's result says of the latency, where it was a budget."""
        return {"latency": self.measured} if self.measured else {}

    def _measure(self, counts: np.ndarray) -> Measured:
        times = measure_networks(self.network, [counts.tolist()], self.backend)
        dense, pruned, again = summarise(times)
        noisy = noise(dense, again)
        return {**self.backend.as_dict(), "dense_ms": dense.median, "pruned_ms": pruned.median, "noise": noisy}


def settle(
    projector: BudgetProjector, counts: np.ndarray, measure: Callable[[np.ndarray], Measured]
) -> tuple[np.ndarray, Measured, list[str]]:
    """A plan whose measured latency is the budget's, by correcting the model where it was wrong.

    Args:
        projector: with a `TimedCost` and a bound on the latency.
        counts: (groups,) kept counts to start from.
        measure: kept counts -> `dense_ms`, `pruned_ms` and `noise`.

    Returns:
        The plan, what was measured of it, and what to tell of the way there.
    """
    tried: list[tuple[float, np.ndarray, Measured]] = []
    told: list[str] = []
    for _ in range(TRIES):
        measured, limit = measure(counts), projector.budget.limits[LATENCY]
        off = _off(measured, projector.budget)
        tried.append((off, counts, measured))
        foretold = float(projector.cost.ratios(counts)[-1])
        if abs(off - 1) <= LIMIT or (off < 1 and foretold < (1 - LIMIT) * limit):
            break
        told.append(f"the plan takes {100 * off:.0f} % of the latency it may: the model is corrected")
        try:
            projector = _corrected(projector, _by_forecast(projector, counts, measured))
        except UserError:
            break
        again = projector.project(counts[None].astype(float))[0]
        if any((again == known).all() for _, known, _ in tried):
            break
        counts = again
    within = [entry for entry in tried if entry[0] <= 1 + LIMIT]
    best = max(within, key=lambda entry: entry[0]) if within else min(tried, key=lambda entry: entry[0])
    if not within:
        told.append(f"the fastest plan that was tried takes {100 * best[0] - 100:.0f} % more than the budget")
    if best[2]["noise"]:
        told.append(f"this machine is too noisy to tell: {best[2]['noise']}")
    return best[1], best[2], told


def _corrected(projector: BudgetProjector, factor: float) -> BudgetProjector:
    """UserError if the budget is out of reach when everything takes `factor` times what the model says."""
    cost = cast(TimedCost, projector.cost).corrected(factor)
    return BudgetProjector(cost, projector.budget, projector.round_to, projector.min_channels)


def _by_forecast(projector: BudgetProjector, counts: np.ndarray, measured: Measured) -> float:
    """How many times what the model says a plan takes."""
    latency = _off(measured, projector.budget) * projector.budget.limits[LATENCY]
    return latency / float(projector.cost.ratios(counts)[-1])


def _off(measured: Measured, budget: Budget) -> float:
    """How many times the latency of a budget a plan takes; a time is a time, a fraction one of the dense network's."""
    if budget.milliseconds:
        return float(measured["pruned_ms"] / budget.milliseconds)
    return float(measured["pruned_ms"] / measured["dense_ms"] / budget.limits[LATENCY])


def open_budget(
    given: Search | Compare | Prune,
    workload: Workload,
    budgets: Sequence[Budget],
    progress: Progress,
    folder: Path | None = None,
) -> MeasuredBudget:
    """Landers for budgets; whatever they ask for is measured first.

    Args:
        given: the command's settings.
        workload: the network.
        budgets: may bound the latency.
        progress: told what is going on.
        folder: of a run that may have measured already.

    Raises:
        UserError: a budget that cannot be met, a backend that does not work here, a damaged file of measurements.
    """
    backend = backend_of(given, workload)
    measured_budget = MeasuredBudget([], backend, workload.network)
    timed = any(budget.timed for budget in budgets)
    if not timed and given.round_to != "auto":
        measured_budget.projectors = [
            BudgetProjector(workload.cost, budget, given.round_to, given.min_channels) for budget in budgets
        ]
        return measured_budget
    path = None if folder is None else folder / "latency.json"
    known = _remembered(path) if path is not None and path.is_file() else {}
    layers = find_layers(workload.module, shape_of(workload.network))
    if not layers:
        raise UserError("this network calls no convolution or linear layer whose time could be measured")
    progress.stage("measuring layers")
    round_to = known.get("round_to") or _round_to(given, layers, backend, progress)
    cost: Cost = workload.cost
    if timed:
        try:
            cost, measured_budget.facts = timed_cost(workload, layers, backend, int(round_to), known, progress)
        except ValueError as error:
            # Not as many measurements as there are layers and networks.
            raise (_damaged(path) if path is not None and known else error) from error
        measured_budget.facts |= {"corrections": known.get("corrections", [])}
        budgets = [budget.against(cost.dense[-1]) for budget in budgets]
    measured_budget.facts |= {"runtime": backend.as_dict(), "round_to": round_to}
    measured_budget.projectors = [BudgetProjector(cost, budget, round_to, given.min_channels) for budget in budgets]
    return measured_budget


def _remembered(path: Path) -> Measured:
    """What a run folder has measured before."""
    known = LATENCY_FORMAT.read(path)
    measured = [known.get(name) or [] for name in ("layers_ms", "networks_ms", "corrections")]
    if not all(isinstance(each, list) for each in measured):
        raise _damaged(path)
    numbers = [known.get("round_to", 1), *chain.from_iterable(measured)]
    if not all(type(each) in (int, float) and 0 < each < np.inf for each in numbers):
        raise _damaged(path)
    return known


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: remove it, and what it holds is measured again")


def backend_of(given: Search | Compare | Prune, workload: Workload) -> Backend:
    """How the settings say that the network is run."""
    name, threads = given.backend or "torch", given.threads or torch.get_num_threads()
    return Backend(name, given.batch or 1, threads, device_for(name, workload.device))


def _round_to(
    given: Search | Compare | Prune, layers: list[tuple[str, Layer]], backend: Backend, progress: Progress
) -> int:
    if isinstance(given.round_to, int):
        return given.round_to
    multiple, told = best_multiple([layer for _, layer in layers], backend)
    progress.note(told)
    return multiple
