"""Names of networks: our own, torchvision's, timm's, and a factory in a file of the user's."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from rlprune.errors import UserError, unknown
from rlprune.models.external import from_timm, from_torchvision, has_weights, without_weights
from rlprune.models.head import give_head
from rlprune.models.mcifarnet import mcifarnet
from rlprune.models.mobilenetv2 import mobilenetv2
from rlprune.models.resnet import DEPTHS, resnet
from rlprune.models.trust import is_file
from rlprune.models.user_file import from_file
from rlprune.models.vgg import CONVS_PER_STAGE, vgg
from rlprune.utils.lazy import settle
from rlprune.utils.memory import out_of_memory
from rlprune.utils.shapes import RGB, Shape, counted, described, example, parse_sides, shape_of, sides_of

OWN: dict[str, Callable[..., nn.Module]] = {
    **{f"vgg{depth}": partial(vgg, depth) for depth in CONVS_PER_STAGE},
    **{f"resnet{depth}": partial(resnet, depth) for depth in DEPTHS},
    "mobilenetv2": mobilenetv2,
    "mcifarnet": mcifarnet,
}
Tell = Callable[[str], None]
PREFIXED = ("torchvision/NAME", "timm/NAME", "path/to/file.py:factory")
LARGEST_SMALL_IMAGE = 64
SMALLEST_VGG_IMAGE = 32
WIDEST = 64
LARGEST = 10**9
"""Parameters that no convolutional network has more of."""


def model_names() -> list[str]:
    """The names of our own networks."""
    return list(OWN)


def usual_shape(name: str) -> tuple[int, int]:
    """Classes and pixels a side that a network is made for, where no images say so."""
    return (1000, 224) if name.startswith(("torchvision/", "timm/")) else (10, 32)


def build_model(
    name: str,
    *,
    classes: int,
    image_size: int | str,
    channels: int = RGB,
    args: Mapping[str, object] | None = None,
    new_head: bool = False,
    tell: Tell = lambda text: None,
) -> nn.Module:
    """A fresh network in train mode, its weights drawn from torch's global generator.

    Args:
        name: one of ``model_names()``, ``torchvision/NAME``, ``timm/NAME`` or ``path/to/file.py:factory``. Above
            64 pixels ``vggN`` and ``mobilenetv2`` mean the ImageNet form, which is torchvision's.
        classes: number of outputs.
        image_size: pixels a side, or text such as "32x48" for height x width.
        channels: of the images; other than 3 for networks of timm and of files only.
        args: arguments of the network: ``width`` for our own, the constructor's or the factory's for the others.
        new_head: whether the last layer is made anew where it has another number of outputs than ``classes``.
        tell: told what is worth knowing of how it is built.

    Raises:
        UserError: an unknown name, arguments that do not fit or make it larger than any real network, or images that
            it cannot take.
    """
    args, shape = dict(args or {}), (channels, *parse_sides(image_size))
    try:
        # What a file does may have been meant to happen once.
        if args and not is_file(name):
            _rehearse(lambda: _build(name, classes, shape, args))
        with _bounded():
            model = _build(name, None if new_head and has_weights(name, args) else classes, shape, args, tell)
            settle(model, lambda: model(example(shape)), f"images of {described(shape)}")
            if new_head:
                give_head(model, classes, shape)
            return model
    except _TooLargeError:
        given = ", ".join(f"{key}={value}" for key, value in args.items())
        raise UserError(f"{name} has more than {LARGEST:,} parameters with {given or f'{classes} classes'}") from None


def _build(
    name: str, classes: int | None, shape: Shape, args: dict[str, object], tell: Tell = lambda text: None
) -> nn.Module:
    source, slash, rest = name.partition("/")
    if is_file(name):
        assert classes is not None
        return from_file(name, classes, shape, args, tell)
    if slash and source == "timm":
        assert classes is not None
        return from_timm(rest, classes, args, shape[0])
    if shape[0] != RGB and (name in OWN or source == "torchvision"):
        raise UserError(
            f"{name} does not take images of {counted(shape[0])}, it is made for {RGB}: give --channels {RGB}, or use "
            "timm/NAME or a network of your own, file.py:factory"
        )
    if slash and source == "torchvision":
        return from_torchvision(rest, classes, args)
    if name in OWN:
        assert classes is not None
        return _own(name, classes, shape[1:], args)
    if (Path(name) / "plan.json").is_file():
        raise UserError(
            f"--model {name} is a folder of results: name the dense network that they are of, as plan.json there does"
        )
    raise unknown("model", name, [*OWN, *PREFIXED])


class _TooLargeError(Exception):
    """There are more parameters than can be meant."""


@contextmanager
def _bounded() -> Iterator[None]:
    """Within, a network that has too many parameters, or too large ones, is given up."""
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        total += 0 if parameter is None or is_lazy(parameter) else parameter.numel()
        if total > LARGEST:
            raise _TooLargeError

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error) and "overflow" not in str(error):
            raise
        raise _TooLargeError from None
    finally:
        handle.remove()


def _rehearse(make: Callable[[], nn.Module]) -> None:
    """Build a network without any memory for its tensors."""
    try:
        with _bounded(), torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make()
    except _TooLargeError:
        raise
    # All else goes wrong again, or did so for want of numbers.
    except Exception:
        return


def _own(name: str, classes: int, sides: tuple[int, int], args: dict[str, object]) -> nn.Module:
    """Our own network; above 64 pixels torchvision's of the same architecture where ours is made for small images."""
    width = _width(name, args)
    if name.startswith("vgg") and min(sides) < SMALLEST_VGG_IMAGE:
        raise UserError(
            f"{name} halves the image five times and needs {SMALLEST_VGG_IMAGE} pixels or more; got "
            f"{sides_of(*sides)}: use larger images or another network, such as resnet20"
        )
    if name.startswith(("resnet", "mcifarnet")) or max(sides) <= LARGEST_SMALL_IMAGE:
        return OWN[name](classes=classes, width=width)
    if name == "mobilenetv2":
        return from_torchvision("mobilenet_v2", classes, {"width_mult": width})
    if width != 1:
        raise UserError(
            f"{name} takes a width for images up to {LARGEST_SMALL_IMAGE} pixels only; got width={width} at "
            f"{sides_of(*sides)} pixels: leave it out, or use mobilenetv2"
        )
    return from_torchvision(f"{name}_bn", classes, {})


def _width(name: str, args: Mapping[str, object]) -> float:
    for given in args:
        if given != "width":
            raise unknown(f"argument of {name}", given, ["width"])
    width = args.get("width", 1.0)
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width <= WIDEST:
        raise UserError(
            f"the width of {name} must be a number above 0 and at most {WIDEST}, such as 0.25; got {width!r}"
        )
    return float(width)


def rebuild_model(
    network: Mapping[str, Any], tell: Tell = lambda text: None, *, architecture: bool = False
) -> nn.Module:
    """The dense network that a plan describes, as it was before any checkpoint.

    Args:
        network: `model`, `args`, `classes`, `image_size`, `channels` where they are not 3, and maybe `new_head`.
        tell: see `build_model`.
        architecture: its weights are going to be replaced, and are not downloaded.
    """
    name, classes, args = (network[key] for key in ("model", "classes", "args"))
    args = without_weights(name, args) if architecture else args
    channels, *sides = shape_of(network)
    return build_model(
        name,
        classes=classes,
        image_size=sides_of(*sides),
        channels=channels,
        args=args,
        new_head=bool(network.get("new_head")),
        tell=tell,
    )
