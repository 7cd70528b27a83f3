"""The network that FastNAS of NVIDIA's ModelOpt ends with inside a budget of MACs.

It needs two libraries that rlprune does not: pip install nvidia-modelopt 'torchprofile<0.1'
"""

import contextlib
import copy
import io
import warnings
from typing import Any

import torch
from peers import example, macs
from torch import nn

from rlprune.evaluation.sliced import recalibrate
from rlprune.tasks.classification import calibrated
from rlprune.workloads.workload import Workload

RATIOS = tuple(0.05 * step for step in range(1, 21))
"""Its own keep ratios of a layer."""
STEPS = 0.01
"""How much lower its bound is set as long as what it counts is more than the budget by torch's counter."""


def fastnas(workload: Workload, budget: float) -> tuple[nn.Module, int]:
    """Its network, on recalibrated batch norms, and how many plans it has scored.

    Its score of a plan is ours: minus the loss on the search images after the batch norms were recalibrated on the
    calibration images. Channels go one by one and not in multiples of 32, which these networks are too thin for.
    """
    limit = budget
    while True:
        smaller, scores = _within(workload, limit)
        if macs(smaller, workload) <= budget * macs(workload.module, workload):
            recalibrate(smaller, workload.calibration()[0])
            return smaller, scores
        limit -= STEPS


def _within(workload: Workload, limit: float) -> tuple[nn.Module, int]:
    """Its network for one bound, as a share of the dense network's."""
    import modelopt.torch.prune as mtp

    images, labels = workload.search()
    calibration, number = workload.calibration()[0], 0

    def score(module: nn.Module) -> float:
        nonlocal number
        number += 1
        recalibrate(module, calibration)
        with torch.inference_mode():
            return -calibrated(module(images), labels).loss

    linear = {"*": {"features_ratio": RATIOS, "feature_divisor": 1}}
    config: dict[str, Any] = {
        "nn.Conv2d": {"*": {"channels_ratio": RATIOS, "channel_divisor": 1, "kernel_size": ()}},
        "nn.BatchNorm2d": linear,
        "nn.Linear": linear,
    }
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found, _ = mtp.prune(
            copy.deepcopy(workload.module).to(memory_format=torch.contiguous_format),
            mode=[("fastnas", config)],
            constraints={"flops": f"{100 * limit:g}%"},
            dummy_input=example(workload),
            config={"score_func": score, "verbose": False},
        )
    return found.eval(), number
