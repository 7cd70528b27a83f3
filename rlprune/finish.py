"""From kept counts to a folder: prune for real, fine-tune, measure on the test images, save."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from rlprune.budget import Budget
from rlprune.evaluator import recalibrate
from rlprune.files import write_text
from rlprune.finetune import evaluate
from rlprune.models.checkpoint import save_weights
from rlprune.plan import PruningPlan, ratio_table
from rlprune.problem import Problem, fit
from rlprune.progress import Progress
from rlprune.pruner import prune


def save_plan(problem: Problem, plan: PruningPlan, folder: Path) -> pd.DataFrame:
    """Write `plan.json` and `ratios.csv`; returns the ratio table."""
    plan.save(folder / "plan.json")
    table = ratio_table(problem.graph, problem.cost, plan.counts())
    write_text(folder / "ratios.csv", table.to_csv(index=False))
    return table


def save_pruned(module: nn.Module, plan: PruningPlan, folder: Path) -> None:
    """Write a pruned network as `model.safetensors` and `plan.json`, which `rlprune.load` reads back."""
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / "plan.json")
    save_weights(module, folder / "model.safetensors")


def prune_and_recover(
    problem: Problem, plan: PruningPlan, folder: Path, epochs: int, options: Mapping[str, Any], seed: int, progress: Progress
) -> dict[str, Any]:
    """Prune, recalibrate, fine-tune and save; the test images are looked at here and nowhere else.

    Args:
        problem: the dense network and its images.
        plan: what to keep.
        folder: gets `plan.json`, `ratios.csv`, `finetune.csv` and `pruned/`.
        epochs: of fine-tuning; 0 leaves it out.
        options: `lr` and `batch_size` of the fine-tuning, None for the defaults.
        seed: of the fine-tuning.
        progress: told what is going on.

    Returns:
        Accuracies on the test images (the fine-tuned one None without fine-tuning), costs and the ratio table.
    """
    table = save_plan(problem, plan, folder)
    progress.stage("pruning")
    smaller = prune(problem.module, problem.graph, plan.mask(problem.graph))
    recalibrate(smaller, problem.calibration()[0])
    _, dense = evaluate(problem.module, problem.data.test, device=problem.device)
    _, oneshot = evaluate(smaller, problem.data.test, device=problem.device)
    tuned = None
    if epochs:
        state = folder / "state" / "finetune.pt"
        history = fit(smaller, problem, epochs, options, seed, state, progress, "fine-tuning")
        write_text(folder / "finetune.csv", pd.DataFrame(history).to_csv(index=False))
        _, tuned = evaluate(smaller, problem.data.test, device=problem.device)
    save_pruned(smaller, plan, folder / "pruned")
    if epochs:
        state.unlink(missing_ok=True)
    return {
        "dense_accuracy": dense,
        "oneshot_accuracy": oneshot,
        "finetuned_accuracy": tuned,
        **costs(problem, plan.counts()),
        "table": table.to_dict("records"),
    }


def costs(problem: Problem, counts: np.ndarray) -> dict[str, Any]:
    """MACs and parameters before and after, and the kept fractions."""
    dense, pruned = problem.cost.dense, problem.cost(counts)
    return {
        "macs_ratio": float(pruned[0] / dense[0]),
        "params_ratio": float(pruned[1] / dense[1]),
        "dense_macs": int(dense[0]),
        "pruned_macs": int(pruned[0]),
        "dense_params": int(dense[1]),
        "pruned_params": int(pruned[1]),
    }


def count(module: nn.Module, image_size: int, device: torch.device) -> tuple[int, int]:
    """MACs for one image and parameters of any network, counted by running it."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, image_size, image_size, device=device))
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters())


def described(budget: Budget, problem: Problem, seconds: float) -> dict[str, Any]:
    """What a result says of its setting."""
    return {
        "model": problem.network["model"],
        "data": problem.data.name,
        "budget": str(budget),
        "budget_words": budget.describe(),
        "seconds": round(seconds, 1),
    }
