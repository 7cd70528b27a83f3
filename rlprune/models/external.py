"""Networks of torchvision and timm."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from torch import nn

from rlprune.errors import UserError, unknown
from rlprune.utils.shapes import RGB

# Without these the two warn about their defaults, and train mode returns a tuple.
QUIET = {"aux_logits": False, "init_weights": True}
WITH_WEIGHTS: dict[str, dict[str, object]] = {
    "googlenet": {"transform_input": True},
    "inception_v3": {"transform_input": True, "aux_logits": True},
}
"""What else changes by default where these are given weights: the colours of the images, and what training returns."""
MISFITS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
"""What arguments of the wrong type or size lead to."""
FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
"""Arguments by which timm reads weights from anywhere, which in some of its releases unpickles them."""


def has_weights(name: str, args: Mapping[str, object]) -> bool:
    """Whether arguments of a network of torchvision ask for weights, which are for as many classes as they are for."""
    return name.startswith("torchvision/") and args.get("weights") is not None


def without_weights(name: str, args: Mapping[str, object]) -> dict[str, object]:
    """Arguments that make the same network of torchvision or timm with fresh weights; others are left as they are."""
    source, _, rest = name.partition("/")
    asked = {"torchvision": "weights", "timm": "pretrained"}.get(source)
    if asked is None or not args.get(asked):
        return dict(args)
    besides = WITH_WEIGHTS.get(rest, {}) if source == "torchvision" else {}
    return {**besides, **{key: value for key, value in args.items() if key != asked}}


@contextmanager
def _weights_from_the_network(name: str) -> Iterator[None]:
    """Within, weights may be downloaded; people are told in a sentence where they cannot be."""
    try:
        yield
    except Exception as error:
        home = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError) and home not in ("huggingface_hub", "httpx", "requests", "urllib3"):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"the weights of {name} cannot be downloaded: {reason}; fetch them where there is a network, and give the "
            "file as --checkpoint instead"
        ) from error


def from_torchvision(name: str, classes: int | None, args: Mapping[str, object]) -> nn.Module:
    """A classification network of torchvision, without pretrained weights unless ``args`` name some.

    Args:
        name: as ``torchvision.models.list_models`` has it.
        classes: number of outputs, or None for those of the weights.
        args: keyword arguments of torchvision's builder.

    Raises:
        UserError: an unknown name, or arguments torchvision does not take.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision classification model", name, known)
    fresh = args.get("weights") is None
    defaults = QUIET if fresh and name in WITH_WEIGHTS else {}
    outputs = {} if classes is None else {"num_classes": classes}
    settings: dict[str, Any] = {"weights": None, **outputs, **defaults, **args}
    try:
        with _weights_from_the_network(f"torchvision/{name}"):
            return models.get_model(name, **settings)
    except MISFITS as error:
        fix = (
            "" if fresh or "num_classes" not in str(error) else "; --new-head takes the weights but for the last layer"
        )
        raise _refused(f"torchvision/{name}", outputs | dict(args), error, fix) from error


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
        with _weights_from_the_network(f"timm/{name}"):
            return timm.create_model(name, **settings)
    except MISFITS as error:
        raise _refused(f"timm/{name}", {"num_classes": classes, **args}, error) from error


def _refused(name: str, args: Mapping[str, object], error: Exception, fix: str = "") -> UserError:
    given = ", ".join(f"{key}={value}" for key, value in args.items())
    return UserError(f"{name} does not take the arguments {given}: {str(error).rstrip('.')}{fix}")
