"""`rlprune eval`."""

from typing import Any

import torch
from torch import nn

from rlprune.commands.base import command
from rlprune.config.commands import Eval
from rlprune.config.resolve import as_dict
from rlprune.errors import UserError
from rlprune.gating.counting import CountingNetwork
from rlprune.gating.skipping import SkippingNetwork
from rlprune.training.loop import evaluate
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import Shape, example
from rlprune.workloads.pruned import open_pruned
from rlprune.workloads.workload import open_workload


@command(Eval)
def eval(given: Eval, progress: Progress) -> dict[str, Any]:
    """Accuracy on the test images, MACs and parameters of a run, a pruned folder or a dense checkpoint.

    The costs are counted by running the network, not taken from the plan; of a network that skips channels image by
    image the MACs are the mean over the test images.
    """
    if given.source is None:
        if given.checkpoint is None:
            raise UserError("--checkpoint is missing: name the file with the weights of the network to evaluate")
        workload = open_workload(as_dict(given) | {"data": given.data or "digits"}, progress)
        module, what = workload.module, str(given.checkpoint)
    else:
        workload, module, _ = open_pruned(given.source, as_dict(given), progress)
        what = str(given.source)
    progress.stage("evaluating on the test images")
    measured = CountingNetwork(module.gated) if isinstance(module, SkippingNetwork) else module
    loss, accuracy = evaluate(measured, workload.data.test, device=workload.device)
    macs, params = count(module, workload.data.shape, workload.device)
    if isinstance(measured, CountingNetwork):
        # Every image takes another number, and the predictors that the counter has seen are no part of the network.
        macs = int(workload.cost.ratios(measured.counts())[:, 0].mean() * workload.cost.dense[0])
    dense = workload.cost.dense
    pruned = given.source is not None
    return {
        "what": what,
        "test_accuracy": accuracy,
        "test_loss": loss,
        "macs": macs,
        "params": params,
        "macs_ratio": macs / dense[0] if pruned else None,
        "params_ratio": params / dense[1] if pruned else None,
    }


def count(module: nn.Module, shape: Shape, device: torch.device) -> tuple[int, int]:
    """MACs for one image and parameters of any network, counted by running it."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(example(shape, device=device))
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters())
