"""`--round-to auto`: the multiple of channels that a backend likes, by measuring it."""

from collections.abc import Sequence

import numpy as np

from rlprune.latency.backends import Backend
from rlprune.latency.layers import Layer
from rlprune.latency.lookup import LayerShape, measure_layers

MULTIPLES = (1, 4, 8, 16)
LAYERS = 4
"""Layers that are asked: the heaviest of different kinds."""
KEPT = 0.5
OFFSETS = (-15, -9, -3, 3, 9, 15)
"""From the middle, then rounded to a multiple: the same window for all, since one count may be lucky."""
WORTH = 0.03
"""A finer multiple is taken where it costs less than this in speed."""


def best_multiple(layers: Sequence[Layer], backend: Backend) -> tuple[int, str]:
    """The smallest multiple with (nearly) the lowest time per multiply-accumulate.

    Args:
        layers: of the network; its heaviest ones are measured at about half of their channels.
        backend: how the network is run.

    Returns:
        The multiple, and what was measured in words.
    """
    heavy = sorted({_narrow(layer): layer for layer in layers}.values(), key=_macs, reverse=True)
    heavy = [layer for layer in heavy if min(layer.shape) >= 4 * MULTIPLES[-1]][:LAYERS]
    if not heavy:
        return 1, "round-to auto: 1, for all layers are too narrow to tell"
    shapes = {multiple: [_shapes(layer, multiple) for layer in heavy] for multiple in MULTIPLES}
    times = measure_layers([shape for groups in shapes.values() for group in groups for shape in group], backend)
    paces = {multiple: _pace(groups, times) for multiple, groups in shapes.items()}
    fastest = min(paces.values())
    chosen = next(multiple for multiple, pace in paces.items() if pace <= (1 + WORTH) * fastest)
    compared = ", ".join(f"{pace / paces[1]:.2f} with {multiple}" for multiple, pace in paces.items())
    return chosen, f"round-to auto: {chosen}; time per MAC on {backend}: {compared}"


def _narrow(layer: Layer) -> tuple[object, ...]:
    return (layer.spatial, layer.kernel, layer.stride, layer.groups > 1, layer.shape)


def _macs(layer: Layer) -> float:
    return float(np.prod(layer.shape) * np.prod(layer.kernel) * np.prod(layer.spatial) / np.prod(layer.stride))


def _shapes(layer: Layer, multiple: int) -> list[LayerShape]:
    """Pairs of counts around half of the layer's, all of them multiples."""
    middle = [round(KEPT * size / MULTIPLES[-1]) * MULTIPLES[-1] for size in layer.shape]
    offsets = [round(offset / multiple) * multiple for offset in OFFSETS]
    return [(layer, middle[0] + offset, middle[1] + offset) for offset in offsets]


def _pace(groups: Sequence[Sequence[LayerShape]], times: dict[LayerShape, float]) -> float:
    """Time per multiply-accumulate relative to the layer's size, the mean over layers by their share."""
    pace = [
        np.mean([times[shape] / (shape[1] * shape[2]) for shape in group]) * np.prod(group[0][0].shape)
        for group in groups
    ]
    return float(np.sum(pace))
