"""Pruned networks in the shape that model hubs have: a folder with `config.json` and `model.safetensors`.

A pruned folder is such a folder; nothing else is written or read here. Local folders only.
"""

from pathlib import Path

import torch
from torch import nn

from rlprune.artifacts.pruned import load, plan_in, save_pruned
from rlprune.errors import UserError
from rlprune.plans.plan import PruningPlan
from rlprune.utils.modules import unwrapped


def save_pretrained(module: nn.Module, folder: str | Path, plan: PruningPlan | None = None) -> None:
    """Write a pruned network, such as one that was trained on after `rlprune.load`, to a folder.

    Args:
        module: from `rlprune.load` or `from_pretrained`, or any other pruned network together with its plan.
        folder: gets `config.json`, `plan.json`, `model.safetensors` and, unless there is one, `README.md`.
        plan: of the network, where it does not come from a folder; or of a second cut, where it does and was cut again.

    Raises:
        UserError: it is not known how the network was pruned or cut again, or the folder cannot be written.
    """
    known = plan or plan_in(module)
    if known is None:
        name = type(unwrapped(module)).__name__
        raise UserError(f"it is not known how this {name} was pruned: load it by rlprune.load or give its plan")
    save_pruned(module, known, Path(folder))


def from_pretrained(folder: str | Path, device: str | torch.device = "cpu", *, model: str | None = None) -> nn.Module:
    """A pruned network from its folder, in eval mode; the same as `rlprune.load`.

    Args:
        folder: from `save_pretrained`, a pruned folder, or a run folder that holds one.
        device: where it goes.
        model: see `rlprune.load`.

    Raises:
        UserError: not such a folder, its weights do not fit its network, or it wants code run that nobody has named.
    """
    return load(folder, device, model=model)
