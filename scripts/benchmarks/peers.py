"""What another library ends with at equal MACs: torch-pruning's global and isomorphic pruning, one-shot.

Its keep ratio is searched by halving for the largest network inside the budget; batch norm is recalibrated on the same
images as everywhere else.
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.evaluation.sliced import recalibrate
from rlprune.tasks.classification import calibrated
from rlprune.training.loop import evaluate
from rlprune.workloads.workload import Workload

PEERS = {"torch-pruning global": False, "torch-pruning isomorphic": True}
HALVINGS = 10


def peers(workload: Workload, budget: float) -> list[dict[str, Any]]:
    """Loss on the search images and accuracy on the test images of torch-pruning's networks at a budget of MACs."""
    records = []
    for name, isomorphic in PEERS.items():
        smaller = within(workload, budget, isomorphic)
        recalibrate(smaller, workload.calibration()[0])
        images, labels = workload.search()
        with torch.inference_mode():
            found = calibrated(smaller(images), labels)
        kept = macs(smaller, workload) / macs(workload.module, workload)
        _, accuracy = evaluate(smaller, workload.data.test, device=workload.device)
        record = {"method": name, "search_loss": found.loss, "search_loss_sd": None, "macs_ratio": kept}
        records.append(record | {"test_accuracy": accuracy, "test_accuracy_sd": None})
    return records


def within(workload: Workload, budget: float, isomorphic: bool) -> nn.Module:
    """The largest network inside the budget."""
    limit, low, high = budget * macs(workload.module, workload), 0.0, 1.0
    best = cut(workload, 1.0, isomorphic)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        smaller = cut(workload, middle, isomorphic)
        if macs(smaller, workload) <= limit:
            best, high = smaller, middle
        else:
            low = middle
    return best


def cut(workload: Workload, ratio: float, isomorphic: bool) -> nn.Module:
    """torch-pruning's network without a part of the channels of all groups together."""
    from torch_pruning import importance, pruner

    module = copy.deepcopy(workload.module)
    outputs = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    step = pruner.BasePruner(
        module,
        example(workload),
        importance=importance.MagnitudeImportance(p=1),
        global_pruning=True,
        isomorphic=isomorphic,
        pruning_ratio=ratio,
        # It would remove whole layers otherwise.
        max_pruning_ratio=0.95,
        ignored_layers=outputs,
    )
    step.step()
    return module.eval()


def macs(module: nn.Module, workload: Workload) -> float:
    """Multiply-accumulates of one image, by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(example(workload))
    return counter.get_total_flops() / 2


def example(workload: Workload) -> torch.Tensor:
    """One image of nothing."""
    return torch.zeros(1, *workload.data.shape, device=workload.device)
