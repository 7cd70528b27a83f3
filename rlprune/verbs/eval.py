"""`rlprune eval`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.config import Eval, as_dict, resolve
from rlprune.errors import UserError
from rlprune.keeps import macs_ratios
from rlprune.problem import open_problem, open_pruned
from rlprune.progress import Progress
from rlprune.skipping import SkippingNetwork
from rlprune.training import evaluate


def eval(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Accuracy on the test images, MACs and parameters of a run, a pruned folder or a dense checkpoint.

    The costs are counted by running the network, not taken from the plan; of a network that skips channels image by
    image the MACs are the mean over the test images.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Eval`.

    Raises:
        UserError: whatever cannot be used.
    """
    progress = progress or Progress()
    given = resolve(Eval, settings, config)
    if given.source is None:
        if given.checkpoint is None:
            raise UserError("--checkpoint is missing: name the file with the weights of the network to evaluate")
        problem = open_problem(as_dict(given) | {"data": given.data or "digits"}, progress)
        module, what = problem.module, str(given.checkpoint)
    else:
        problem, module, _ = open_pruned(given.source, as_dict(given), progress)
        what = str(given.source)
    progress.stage("evaluating on the test images")
    loss, accuracy = evaluate(module, problem.data.test, device=problem.device)
    macs, params = count(module, problem.data.image_size, problem.device)
    if isinstance(module, SkippingNetwork):
        # Every image takes another number, and the predictors that the counter has seen are no part of the network.
        batches = problem.data.test.batches(250, device=problem.device)
        ratios = [macs_ratios(module.gated, module.runtime, problem.cost, images) for images, _ in batches]
        macs = int(np.concatenate(ratios).mean() * problem.cost.dense[0])
    dense = problem.cost.dense
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


def count(module: nn.Module, image_size: int, device: torch.device) -> tuple[int, int]:
    """MACs for one image and parameters of any network, counted by running it."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, image_size, image_size, device=device))
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters())
