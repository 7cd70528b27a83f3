"""Networks of torchvision and timm."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import nn

from rlprune.errors import UserError, unknown
from rlprune.utils.shapes import RGB

# Without these the two warn about their defaults, and train mode returns a tuple.
QUIET = {"aux_logits": False, "init_weights": True}
MISFITS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
"""What arguments of the wrong type or size lead to."""
FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
"""Arguments by which timm reads weights from anywhere, which in some of its releases unpickles them."""


def from_torchvision(name: str, classes: int, args: Mapping[str, object]) -> nn.Module:
    """A classification network of torchvision, without pretrained weights unless ``args`` name some.

    Args:
        name: as ``torchvision.models.list_models`` has it.
        classes: number of outputs.
        args: keyword arguments of torchvision's builder.

    Raises:
        UserError: an unknown name, or arguments torchvision does not take.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision classification model", name, known)
    fresh = args.get("weights") is None
    defaults = QUIET if fresh and name in ("googlenet", "inception_v3") else {}
    try:
        return models.get_model(name, **{"weights": None, "num_classes": classes, **defaults, **args})
    except MISFITS as error:
        raise _refused(f"torchvision/{name}", classes, args, error) from error


def from_timm(name: str, classes: int, args: Mapping[str, object], channels: int = RGB) -> nn.Module:
    """A network of timm, without pretrained weights unless ``args`` ask for them.

    Args:
        name: as ``timm.list_models`` has it.
        classes: number of outputs.
        args: keyword arguments of ``timm.create_model``.
        channels: of the images.

    Raises:
        UserError: timm is not installed, an unknown name, or arguments timm does not take.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UserError(f"timm/{name} needs timm: pip install 'rlprune[timm]'") from error
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown timm model '{name}': {hint}timm.list_models() lists them all")
    try:
        if files := [name for name in FILES if name in args]:
            raise ValueError(f"{files[0]} names weights, which --checkpoint reads safely")
        channels_too = {} if channels == RGB else {"in_chans": channels}
        settings: dict[str, Any] = {"pretrained": False, "num_classes": classes, **channels_too, **args}
        return timm.create_model(name, **settings)
    except MISFITS as error:
        raise _refused(f"timm/{name}", classes, args, error) from error


def _refused(name: str, classes: int, args: Mapping[str, object], error: Exception) -> UserError:
    given = ", ".join(f"{key}={value}" for key, value in {"num_classes": classes, **args}.items())
    return UserError(f"{name} does not take the arguments {given}: {error}")
