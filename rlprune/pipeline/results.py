"""What the results of several commands say alike: costs, sizes, the setting; and how runs end before their end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rlprune.config.commands import Search
from rlprune.cost.budget import Budget, describe
from rlprune.plans.kernels import UNIT
from rlprune.plans.plan import PruningPlan
from rlprune.reports.page import complete_run_page
from rlprune.runs.folder import RunFolder, finished, read_result
from rlprune.utils.modules import named_tensors
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload


def costs(workload: Workload, counts: np.ndarray) -> dict[str, Any]:
    """MACs and parameters before and after, and the kept fractions."""
    dense, pruned = workload.cost.dense, workload.cost(counts)
    return {
        "macs_ratio": float(pruned[0] / dense[0]),
        "params_ratio": float(pruned[1] / dense[1]),
        "dense_macs": int(dense[0]),
        "pruned_macs": int(pruned[0]),
        "dense_params": int(dense[1]),
        "pruned_params": int(pruned[1]),
    }


def sizes(dense: nn.Module, pruned: Path) -> dict[str, int]:
    """Bytes of the weights of the dense network, and of the file in a pruned folder."""
    tensors = named_tensors(dense).values()
    return {
        "dense_bytes": sum(tensor.nbytes for tensor in tensors),
        "pruned_bytes": (pruned / "model.safetensors").stat().st_size,
    }


def unit_of(plan: PruningPlan) -> dict[str, str]:
    """What a result says of what goes; nothing where that is channels."""
    return {} if plan.kernels is None else {"unit": UNIT}


def described(budgets: Sequence[Budget], workload: Workload, seconds: float) -> dict[str, Any]:
    """What a result says of its setting: one budget, or the budgets of a range."""
    return {
        "model": workload.network["model"],
        "data": workload.data.name,
        "budget": " to ".join(dict.fromkeys((str(budgets[0]), str(budgets[-1])))),
        "budget_words": describe(budgets),
        "seconds": round(seconds, 1),
    }


def known_result(folder: Path, given: Search, progress: Progress) -> dict[str, Any] | None:
    """The result of a run that is finished already, whose page gets what it lacks; None where there is work to do.

    Args:
        folder: of the run.
        given: its settings.
        progress: told that nothing is done.

    Raises:
        UserError: the folder belongs to a different run.
    """
    RunFolder.check(folder, given)
    if not finished(folder):
        return None
    progress.note(f"{folder} is finished already; this is its result")
    complete_run_page(folder)
    return read_result(folder)


@contextmanager
def continuable(kept: str, progress: Progress) -> Iterator[None]:
    """Within, whoever interrupts hears what is kept and how to go on.

    Args:
        kept: what is where, in words.
        progress: its stage is left unfinished.
    """
    try:
        yield
    except KeyboardInterrupt:
        progress.close(finished=False)
        raise KeyboardInterrupt(f"{kept}; the same command continues") from None
