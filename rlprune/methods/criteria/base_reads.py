"""Channels where layers read them: looked at, or masked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.graph.structure import WHOLE, Graph
from rlprune.methods.criteria.base_gradients import chunks, slices
from rlprune.utils.modules import CONVOLUTIONS, TRANSPOSED

Look = Callable[[nn.Module, Tensor, np.ndarray], Tensor | None]
"""A layer, its input, and the (inputs,) positions of what it reads in the list of all groups' channels -> another
input, or None."""


class OtherBatchError(Exception):
    """A layer reads another number of rows than there are images."""


def over_chunks(images: Tensor, run: Callable[[list[slice]], np.ndarray]) -> np.ndarray:
    """What is computed over images in chunks; one at a time where a layer's rows are not images.

    Such are windows of an image, or tokens that stand before images: of a single image every row is a part.

    Args:
        images: (N, C, H, W).
        run: slices of the images -> the result over all of them; may raise OtherBatchError.
    """
    try:
        return run(chunks(images))
    except OtherBatchError:
        return run(slices(images, 1))


def by_image(layer: nn.Module, features: Tensor, images: int) -> Tensor:
    """(images, rows, channels) of what a layer reads.

    Raises:
        OtherBatchError: it reads other than one row an image, and there is more than one image.
    """
    if len(features) != images > 1:
        raise OtherBatchError
    # A linear layer's features stand last, a convolution's channels second.
    last = features if isinstance(layer, nn.Linear) else features.movedim(1, -1)
    return last.reshape(images, -1, last.shape[-1])


def read_slots(module: nn.Module, graph: Graph) -> dict[nn.Module, np.ndarray]:
    """Layer -> (inputs,) positions in the list of all groups' channels, or `WHOLE`, for the layers that read any."""
    # What is no layer is a parameter of its own, which nobody can be seen to read for.
    layers = dict(module.named_modules())
    return {layers[axis.layer]: axis.slots for axis in graph.axes if axis.side == "in" and axis.layer in layers}


def tied_slots(module: nn.Module, graph: Graph) -> dict[nn.Module, np.ndarray]:
    """The same for grouped and depthwise layers whose inputs are channels of the group that they make."""
    read, layers = read_slots(module, graph), dict(module.named_modules())
    made = {layers[axis.layer]: axis.slots for axis in graph.axes if axis.side == "out" and axis.layer in layers}
    return {
        # All outputs of a group of filters go together, and with them all that these read.
        layer: np.repeat(slots.reshape(layer.groups, -1)[:, 0], layer.in_channels // layer.groups)
        for layer, slots in made.items()
        if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)) and layer.groups > 1 and layer not in read
    }


@contextmanager
def watching(
    module: nn.Module, graph: Graph, look: Look, name: str, more: dict[nn.Module, np.ndarray] | None = None
) -> Iterator[None]:
    """Within, what layers read of groups' channels is looked at, or changed.

    Args:
        module: the network.
        graph: its structure.
        look: called with everything that is read.
        name: of the criterion, for errors.
        more: other layers, as of `read_slots`.

    Raises:
        UserError: some channels were not read by any layer that was called. Such are the queries and keys of an
            attention, which a product of activations reads, and what is read by a function that only borrows the
            weight of a layer.
    """
    seen = np.zeros(int(graph.sizes.sum()) + 1, dtype=bool)

    def hook(slots: np.ndarray) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
        def called(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            changed = look(layer, inputs[0], slots)
            seen[slots] = True
            return None if changed is None else (changed, *inputs[1:])

        return called

    with ExitStack() as stack:
        for layer, slots in (read_slots(module, graph) | (more or {})).items():
            stack.callback(layer.register_forward_pre_hook(hook(slots)).remove)
        yield
    for group in graph.groups:
        if not seen[group.start : group.start + group.channels].all():
            raise UserError(
                f"criterion {name} does not apply: no layer that is called reads the channels of '{group.name}'; use "
                "l1, l2 or taylor"
            )


@contextmanager
def masked(module: nn.Module, graph: Graph, mask: Tensor, name: str) -> Iterator[None]:
    """Within, every channel is multiplied by its mask wherever a layer reads it, depthwise ones among them.

    Args:
        module: the network.
        graph: its structure.
        mask: (images, all groups' channels), differentiable.
        name: of the criterion, for errors.

    Raises:
        UserError, OtherBatchError: see `watching` and `by_image`.
    """
    # One entry more, always 1, is what index -1 (WHOLE) points at.
    assert WHOLE == -1
    full = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)

    def multiply(layer: nn.Module, features: Tensor, slots: np.ndarray) -> Tensor:
        if len(features) != len(mask) > 1:
            raise OtherBatchError
        mine = full[:, torch.from_numpy(slots).to(mask.device)]
        between = (1,) * (features.dim() - 2)
        shape = (len(mask), *between, -1) if isinstance(layer, nn.Linear) else (len(mask), -1, *between)
        return features * mine.reshape(shape)

    with watching(module, graph, multiply, name, tied_slots(module, graph)):
        yield
