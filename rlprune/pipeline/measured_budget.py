"""Budgets with what has to be measured for them: the latency of a network, and the multiple of channels it likes."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

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
from rlprune.latency.overhead import EXACT, Line, find_overhead, overhead_words, what_helps
from rlprune.latency.timing import noise, summarise
from rlprune.pipeline.settling import Measured, by_forecast, corrected_by, settle
from rlprune.utils.files import FileFormat
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import shape_of
from rlprune.workloads.workload import Workload

LATENCY_FORMAT = FileFormat("rlprune-latency")


@dataclass
class MeasuredBudget:
    """Landers for the budgets of a command, and the measurements that stand behind them.

    Attributes:
        projectors: one a budget.
        backend: how the network is run where its latency counts.
        facts: what was measured, as `latency.json` of a run folder keeps it; empty where nothing was.
        measured: of the final plan, once there is one.
        helps: what would help, besides what always does, where overhead bounds a latency.
    """

    projectors: list[BudgetProjector]
    backend: Backend
    network: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    measured: Measured = field(default_factory=dict)
    helps: tuple[str, ...] = ()
    _corrections: int = field(default=0, init=False)
    _warned: bool = field(default=False, init=False)

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
            counts = counts[: len(self.projectors[0].sizes)]
            factors.append(by_forecast(self.projectors[0], counts, self._measure(counts)))
            self.save(folder)
        factor, self._corrections = factors[self._corrections], self._corrections + 1
        progress.note(
            f"the best plan so far takes {100 * factor:.0f} % of what the latency model says: it is corrected"
        )
        # Where the truth is out of reach, the final measurement says so.
        with suppress(UserError):
            self.projectors[0] = corrected_by(self.projectors[0], factor)
        return self.projectors[0]

    def settle(self, counts: np.ndarray, progress: Progress) -> np.ndarray:
        """The final plan of the only budget: measured, and projected anew where the model was wrong by too much.

        Args:
            counts: (groups,) kept counts, projected by the model; what stands behind them stays as it is.
            progress: told what is going on.
        """
        projector = self.projectors[0]
        if len(self.projectors) > 1 or not projector.budget.timed:
            return counts
        progress.stage("measuring the plan")
        groups = len(projector.sizes)
        settled = settle(projector, counts[:groups], self._measure)
        overhead = self._overhead(projector, settled.line)
        self.measured = {**settled.measured, "warnings": [*overhead, *settled.warnings]}
        for line in [*settled.told, *([] if self._warned else overhead), *settled.warnings]:
            progress.note(line)
        return np.concatenate([settled.counts, counts[groups:]])

    def warn(self, progress: Progress) -> None:
        """Tell of a budget that is met by an absurd plan alone, before any work goes into one."""
        for projector in self.projectors:
            for line in self._overhead(projector)[: not self._warned]:
                progress.note(line)
                self._warned = True

    def _overhead(self, projector: BudgetProjector, line: Line = EXACT) -> list[str]:
        found = find_overhead(projector, line)
        return [] if found is None else [overhead_words(found, projector, self.backend, line, self.helps)]

    def result(self) -> dict[str, Any]:
        """What a command's result says of the latency, where it was a budget."""
        return {"latency": self.measured} if self.measured else {}

    def _measure(self, counts: np.ndarray) -> Measured:
        times = measure_networks(self.network, [counts.tolist()], self.backend)
        dense, pruned, again = summarise(times)
        noisy = noise(dense, again)
        return {**self.backend.as_dict(), "dense_ms": dense.median, "pruned_ms": pruned.median, "noise": noisy}


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
    measured_budget = MeasuredBudget([], backend, workload.network, helps=_helps(given, workload))
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
    measured_budget.projectors = [_projector(cost, budget, round_to, given.min_channels, backend) for budget in budgets]
    measured_budget.warn(progress)
    return measured_budget


def _helps(given: Search | Compare | Prune, workload: Workload) -> tuple[str, ...]:
    """What nobody has asked for yet."""
    asked = isinstance(given, Prune) or "blocks" in given.decisions
    return () if asked or not workload.graph.blocks else ("residual blocks that may go (--decide channels,blocks)",)


def _projector(cost: Cost, budget: Budget, round_to: int, min_channels: int, backend: Backend) -> BudgetProjector:
    """UserError if the budget is out of reach; with what helps, if it is the latency that is."""
    try:
        return BudgetProjector(cost, budget, round_to, min_channels)
    except UserError as error:
        free = BudgetProjector(cost, Budget({}), round_to, min_channels)
        if not budget.timed or cost.ratios(free.minimum)[-1] <= budget.limits[LATENCY]:
            raise
        raise UserError(f"{error}; {what_helps(free, budget, backend)}") from None


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
