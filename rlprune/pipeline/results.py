"""What the results of several commands say alike: costs, sizes, the setting."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rlprune.cost.budget import Budget, describe
from rlprune.utils.modules import named_tensors
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


def described(budgets: Sequence[Budget], workload: Workload, seconds: float) -> dict[str, Any]:
    """What a result says of its setting: one budget, or the budgets of a range."""
    return {
        "model": workload.network["model"],
        "data": workload.data.name,
        "budget": " to ".join(dict.fromkeys((str(budgets[0]), str(budgets[-1])))),
        "budget_words": describe(budgets),
        "seconds": round(seconds, 1),
    }
