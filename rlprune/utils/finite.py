"""Numbers that nothing can be computed with are refused where they come in, with the place where they are."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.utils.modules import NORMS, evaluating

Look = Callable[[str, tuple[object, ...], object], None]


def require_finite_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError unless all tensors of a file hold finite numbers and all variances are such.

    Args:
        state: tensors by name.
        path: what the message calls the file.
    """
    for key, tensor in state.items():
        values = _as_float(tensor, key, path)
        if not torch.isfinite(values).all():
            raise UserError(f"{path}: '{key}' holds NaN or infinite values; use a checkpoint from before it diverged")
        if key.rpartition(".")[2] == "running_var" and (values < 0).any():
            raise UserError(f"{path}: '{key}' holds negative variances; the file is damaged, use another one")


def _as_float(tensor: Tensor, key: str, path: Path) -> Tensor:
    """The numbers as float32; some types of a few bits cannot be turned into anything."""
    try:
        if not tensor.is_complex():
            return tensor.float()
    except RuntimeError:
        pass
    raise UserError(f"{path}: '{key}' has numbers of the type {tensor.dtype}: save the weights as float32")


def require_finite_outputs(module: nn.Module, images: Tensor, name: str) -> None:
    """Raise UserError if a network computes NaN or infinite logits, naming the first layer that does.

    Args:
        module: a classifier with finite weights.
        images: (N, C, H, W) on its device.
        name: what the message calls the network.
    """
    first: list[str] = []

    def look(layer: str, inputs: tuple[object, ...], output: object) -> None:
        if not first and isinstance(output, Tensor) and not torch.isfinite(output).all():
            first.append(layer)

    with evaluating(module), torch.inference_mode():
        if torch.isfinite(module(images)).all():
            return
        with _watched({key: layer for key, layer in module.named_modules() if not any(layer.children())}, look):
            module(images)
    where = f"'{first[0]}' is the first layer that does" if first else "and none of its layers alone does"
    raise UserError(
        f"{name} computes NaN or infinite values for the calibration images, {where}: use a checkpoint from before it "
        "diverged, and --mean and --std as in its training"
    )


def require_variance(module: nn.Module, images: Tensor) -> None:
    """Raise UserError if a batch norm gets a single value a channel, of which there is no variance to take.

    Args:
        module: a network.
        images: (N, C, H, W) for calibration, on its device.
    """
    if len(images) > 1:
        return
    single: list[str] = []

    def look(layer: str, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(inputs[0], Tensor) and inputs[0].numel() == inputs[0].shape[1]:
            single.append(layer)

    norms = {key: layer for key, layer in module.named_modules() if isinstance(layer, NORMS)}
    with evaluating(module), torch.inference_mode(), _watched(norms, look):
        module(images)
    if single:
        raise UserError(
            f"batch norm '{single[0]}' sees a single value a channel of the one calibration image, which has no "
            "variance: ask for --calibration-images 2 or more"
        )


@contextmanager
def _watched(layers: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """Within, whatever goes into these layers and comes out of them is shown."""
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, key=key: look(key, inputs, output))
        for key, layer in layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
