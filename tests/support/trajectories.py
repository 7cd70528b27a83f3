"""Trainings whose dynamics are known, as snapshots of `scoring.coupled`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scoring import coupled
from torch import Tensor

Weights = dict[str, Tensor]


def write(folder: Path, at: Callable[[int], Weights], steps: int = 8) -> Path:
    """Snapshots of a trajectory, step -> weights, in a new folder."""
    folder = folder / "net.snapshots"
    folder.mkdir()
    for step in range(steps):
        save_file(at(step), folder / f"{step}.safetensors")
    return folder


def weights(seed: int) -> Weights:
    """Something for every weight of the network."""
    drawn = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in coupled().state_dict().items() if value.dim()}
    return {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}


def decaying(*parts: tuple[float, Weights]) -> Callable[[int], Weights]:
    """Step -> a sum of weights, each times its rate to the power of the step."""
    return lambda t: {
        name: sum((rate**t * part[name] for rate, part in parts), torch.zeros(())) for name in parts[0][1]
    }


def shares(mode: Weights) -> np.ndarray:
    """What `stem` and `body` say of their group, by the magnitudes of a mode."""
    sums = [mode[f"{name}.weight"].abs().flatten(1).sum(1).numpy() for name in ("stem", "body")]
    return np.sum([each / each.mean() for each in sums], axis=0)
