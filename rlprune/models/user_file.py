"""A network from a function in a Python file of the user's."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from rlprune.errors import UserError, unknown
from rlprune.models.trust import home_of
from rlprune.models.user_imports import import_file, repository
from rlprune.utils.modules import unwrap_inside
from rlprune.utils.shapes import RGB, Shape


def from_file(
    reference: str,
    classes: int,
    shape: Shape,
    args: Mapping[str, object],
    tell: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """Import the file and call its factory. What the user's code raises passes through with its traceback.

    Args:
        reference: ``path/to/file.py:factory``.
        classes: handed on as ``num_classes`` where the factory takes that name and ``args`` do not give it.
        shape: (C, H, W) of an image; handed on as ``in_channels`` and ``image_size`` where the factory has parameters
            of these names without a default, or images are not what defaults are for: C of another number than 3, and
            sides that differ, which are handed on as (H, W).
        args: keyword arguments of the factory.
        tell: told where not all that the factory returns is taken.

    Raises:
        UserError: no such file or factory, arguments that do not fit its signature, or a result that is no network.
    """
    file, _, name = reference.rpartition(":") if ".py:" in reference else (reference, "", "")
    if not name:
        raise UserError(f"'{reference}' names no factory: write path/to/file.py:factory")
    if not Path(file).is_file():
        raise UserError(f"there is no file {file} in {Path.cwd()}: write path/to/file.py:factory")
    path, home = Path(file).resolve(), home_of(reference)
    with repository(path, home), _imports_that_may_be_missing(reference):
        factory = _factory(path, home, name)
        model = factory(**_arguments(reference, factory, classes, shape, args))
    if not isinstance(model, nn.Module):
        raise UserError(f"{reference} returned a {type(model).__name__}: it must return a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError(
            f"{reference} returned a scripted module, whose layers cannot be followed or cut: let it return the "
            "network as it is before torch.jit.script or torch.jit.trace"
        )
    if (inside := unwrap_inside(model)) is not model:
        tell(f"{reference} returned a {type(model).__name__}: the {type(inside).__name__} inside of it is taken")
    return inside


@contextmanager
def _imports_that_may_be_missing(reference: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{reference} needs {error.name}, which is not installed and not beside it: it may import what is in "
            "its own folder, in that of its package or repository, and in the folder above it where it was named"
        ) from error


def _factory(file: Path, home: Path | None, name: str) -> Callable[..., object]:
    module = import_file(file, home)
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown(f"factory in {file}", name, known)
    return factory


def _arguments(
    reference: str, factory: Callable[..., object], classes: int, shape: Shape, args: Mapping[str, object]
) -> dict[str, object]:
    """``args``, completed with classes and shape, once they are known to fit the factory's signature."""
    signature = inspect.signature(factory)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    classes_too = {"num_classes": classes} if takes_any or "num_classes" in signature.parameters else {}
    channels, *sides = shape
    images = {"in_channels": channels, "image_size": sides[0] if sides[0] == sides[1] else tuple(sides)}
    unusual = {"in_channels": channels != RGB, "image_size": sides[0] != sides[1]}
    asked = {
        name: value
        for name, value in images.items()
        if (parameter := signature.parameters.get(name)) and (unusual[name] or parameter.default is parameter.empty)
    }
    arguments = {**classes_too, **asked, **args}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UserError(f"{reference}{signature} cannot be called with ({given}): {error}") from error
    return arguments
