"""Which groups may be cut, as the user says: patterns of layer names, and groups declared by hand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from torch import Tensor

from rlprune.errors import UserError, unknown
from rlprune.tracing.coupling import WITHIN, Coupling, Side


@dataclass(frozen=True)
class Choice:
    """What a user says of a network's groups.

    Attributes:
        include: patterns of layers; with any, only groups that one of them produces are cut.
        exclude: patterns of layers; no group that one of them produces is cut.
        declared: groups by hand: layers that make the channels, and layers that read them.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    declared: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()

    def why_not(self, producers: Iterable[str]) -> str | None:
        """Why a group is left whole, or None."""
        layers = list(producers)
        if found := next((pattern for pattern in self.exclude if any_match(layers, pattern)), None):
            return f"it is excluded by '{found}'"
        if self.include and not any(any_match(layers, pattern) for pattern in self.include):
            return "it is not included"
        return None

    def check(self, layers: Sequence[str]) -> None:
        """Raise UserError for a pattern that no layer has."""
        for name, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any_match(layers, pattern):
                    raise unknown(f"layer in --{name}", pattern, layers)


def any_match(layers: Iterable[str], pattern: str) -> bool:
    """A pattern stands for layers, or for blocks with all that is in them."""
    return any(fnmatchcase(layer, pattern) or fnmatchcase(layer, f"{pattern}.*") for layer in layers)


CHOICES = ("include", "exclude", "group")


def parse_choice(settings: Mapping[str, object]) -> Choice:
    """Read `include`, `exclude` and `group` of the settings.

    Raises:
        UserError: a group that is not of the form ``makers > readers``.
    """

    def names(text: object) -> tuple[str, ...]:
        return tuple(part.strip() for part in str(text or "").split(",") if part.strip())

    declared = []
    for text in str(settings.get("group") or "").split(";"):
        if not text.strip():
            continue
        makers, sign, readers = text.partition(">")
        if not sign or not names(makers) or not names(readers):
            raise UserError(
                f"cannot read the group '{text.strip()}': write the layers that make its channels > the layers that "
                "read them, such as 'conv1,bn1 > conv2'"
            )
        declared.append((names(makers), names(readers)))
    return Choice(names(settings.get("include")), names(settings.get("exclude")), tuple(declared))


def declare(coupling: Coupling, choice: Choice, tensors: Mapping[str, Tensor]) -> frozenset[Side]:
    """Put the groups that are declared by hand in the place of what was traced.

    Args:
        coupling: what was traced; changed in place.
        choice: the groups.
        tensors: parameters and buffers of the network.

    Returns:
        The sides that were declared.

    Raises:
        UserError: a layer that does not exist, sizes that do not fit, or readers that are left out.
    """
    done: set[Side] = set()
    for makers, readers in choice.declared:
        words = f"the group '{', '.join(makers)} > {', '.join(readers)}'"
        sides = [(layer, "out") for layer in makers] + [(layer, "in") for layer in readers]
        sizes = [_size(side, tensors, words) for side in sides]
        start = 1 + max(int(axis.max(initial=0)) for axis in coupling.axes.values())
        for side, size in zip(sides, sizes, strict=True):
            if size % sizes[0] or (side[1] == "out" and size != sizes[0]):
                raise UserError(f"{words} does not fit: {makers[0]} makes {sizes[0]} channels and {side[0]} has {size}")
        before = {channel for side in sides for channel in coupling.axes.get(side, np.zeros(0)).tolist()} - {0}
        for side, axis in coupling.axes.items():
            if side not in sides and side[1] != "fold" and before & set(axis.tolist()):
                raise UserError(f"{words} is not complete: '{side[0]}' has some of its channels, too")
        for side, size in zip(sides, sizes, strict=True):
            coupling.axes[side] = np.repeat(np.arange(start, start + sizes[0]), size // sizes[0])
            if side[1] == "out":
                _follow(coupling, side, size, tensors)
        done |= set(sides)
    return frozenset(done)


def _size(side: Side, tensors: Mapping[str, Tensor], words: str) -> int:
    weight = tensors.get(f"{side[0]}.weight")
    if weight is None:
        layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
        raise UserError(f"{words}: {unknown('layer', side[0], layers)}")
    if side[1] == "in" and weight.dim() < 2:
        raise UserError(f"{words}: '{side[0]}' has no weight that reads channels")
    return weight.shape[0 if side[1] == "out" else 1]


def _follow(coupling: Coupling, side: Side, size: int, tensors: Mapping[str, Tensor]) -> None:
    """What a layer has of one number a channel is cut with it."""
    for leaf in WITHIN:
        name = f"{side[0]}.{leaf}"
        if name in tensors and tensors[name].shape == (size,):
            coupling.follows[name] = (side,)
    if side[0] not in coupling.order:
        coupling.layers.append(side[0])
        coupling.order[side[0]] = len(coupling.order)


EVERYTHING = Choice()
