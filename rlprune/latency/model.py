"""The latency of any kept counts, foretold from single layers that were measured and a few whole networks.

A network takes a sum over its layers, each interpolated in a table of its time over kept outputs and inputs, as
NetAdapt does (Yang et al., 2018, arXiv 1804.03230), plus what no table holds: elements written by other operations,
weights fetched from memory, and a constant. How much of each is fitted to networks that were measured whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from rlprune.cost.exact import RESOURCES, Cost, axis_sizes
from rlprune.graph.structure import Block, Graph
from rlprune.latency.layers import Layer

KNOTS = 5
"""Counts of every axis at which a layer is measured; fewer where it has fewer."""
FINEST = 16
"""The smallest count that is measured is the whole one over this."""
PRIOR = 0.1
"""How firmly the fit holds to the tables alone, relative to a measurement."""


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds as a function of kept counts; never less where more is kept.

    Attributes:
        whole, per_channel: sizes of all axes from counts, as in `rlprune.cost.exact.Cost`; the last is the constant 1.
        outputs, inputs: (layers,) the axis of each layer's outputs and inputs.
        knots: (2, layers, KNOTS) output and input counts at which a layer was measured.
        tables: (layers, KNOTS, KNOTS) milliseconds there.
        elements: (axes,) elements that one entry of an axis stands for.
        weights: (4,) milliseconds for each of a table's milliseconds, a million elements, a million parameters; a
            constant.
        blocks: the inner groups of every residual block: where they keep nothing, its layers take no time.
        inside: for each of them its layers, and the elements that one entry of the outputs of each stands for.
    """

    whole: np.ndarray
    per_channel: np.ndarray
    outputs: np.ndarray
    inputs: np.ndarray
    knots: np.ndarray
    tables: np.ndarray
    elements: np.ndarray
    weights: np.ndarray
    blocks: tuple[tuple[int, ...], ...] = ()
    inside: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def __call__(self, counts: np.ndarray, params: np.ndarray) -> np.ndarray:
        """(...,) milliseconds of (..., groups) kept counts with so many (...,) parameters."""
        return self.parts(counts, params) @ self.weights

    def parts(self, counts: np.ndarray, params: np.ndarray) -> np.ndarray:
        """(..., 4) what the weights weigh."""
        counts = np.asarray(counts, dtype=np.float64)
        sizes = counts @ self.per_channel.T + self.whole
        tabled = self._tabled(sizes[..., self.outputs], sizes[..., self.inputs])
        elements = sizes @ self.elements
        for groups, (layers, each) in zip(self.blocks, self.inside, strict=True) if not counts.all() else ():
            out = (counts[..., list(groups)] == 0).all(axis=-1)
            tabled[..., layers] *= ~out[..., None]
            elements = elements - out * (sizes[..., self.outputs[layers]] @ each)
        milliseconds = tabled.sum(axis=-1)
        return np.stack([milliseconds, elements / 1e6, params / 1e6, np.ones_like(milliseconds)], axis=-1)

    def _tabled(self, outputs: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """(..., layers) bilinear interpolation in every layer's table."""
        row, down = _between(outputs, self.knots[0])
        column, right = _between(inputs, self.knots[1])
        layer = np.arange(len(self.tables))
        near, far = (
            (1 - right) * self.tables[layer, place, column] + right * self.tables[layer, place, column + 1]
            for place in (row, row + 1)
        )
        return (1 - down) * near + down * far


def _between(sizes: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For (..., layers) sizes the knot below, and how far it is to the next one in [0, 1]."""
    below = (sizes[..., None] >= knots[:, 1:-1]).sum(axis=-1)
    layer = np.arange(len(knots))
    low, high = knots[layer, below], knots[layer, below + 1]
    return below, np.clip((sizes - low) / (high - low), 0, 1)


@dataclass(frozen=True)
class TimedCost(Cost):
    """The exact cost with the latency as a third resource."""

    latency: LatencyModel = field(kw_only=True)
    resources = (*RESOURCES, "latency")

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """(..., 3) MACs, parameters and milliseconds."""
        counts = np.asarray(counts)[..., : len(self.sizes)]
        exact = super().__call__(counts)
        return np.concatenate([exact, self.latency(counts, exact[..., 1])[..., None]], axis=-1)

    def corrected(self, factor: float) -> "TimedCost":
        """The same with a latency that is so many times as long, but for the dense network's."""
        return replace(self, latency=replace(self.latency, weights=self.latency.weights * factor))


def with_latency(cost: Cost, latency: LatencyModel, dense: float) -> TimedCost:
    """A cost that knows the latency, relative to the `dense` milliseconds that were measured."""
    return TimedCost(**vars(cost) | {"dense": np.append(cost.dense, dense)}, latency=latency)


@dataclass(frozen=True)
class LayerTable:
    """Where a layer is measured: its axes (an index, or -1 for the constant 1), the counts along them, its weight."""

    layer: Layer
    axes: tuple[int, int]
    counts: tuple[tuple[int, ...], tuple[int, ...]]
    name: str = ""

    def elements(self) -> int:
        """What one entry of its outputs stands for, or all of them where none is ever cut."""
        return self.layer.positions() * (1 if self.axes[0] >= 0 else self.layer.shape[0])

    def shapes(self) -> Iterable[tuple[Layer, int, int]]:
        """Every pair of counts."""
        return ((self.layer, outputs, inputs) for outputs, inputs in product(*self.counts))


def layer_tables(graph: Graph, layers: Iterable[tuple[str, Layer]], round_to: int) -> list[LayerTable]:
    """What has to be measured of a network.

    Args:
        graph: its structure.
        layers: its layers by the names of their weights.
        round_to: kept counts will be multiples of this, as the measured ones are; where it is 1, these are odd, as
            awkward as most.
    """
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    found = []
    for name, layer in layers:
        follows = [*tensors[name].axes, None][:2]
        ends = [
            _knots(size, round_to) if axis is not None else (size,)
            for size, axis in zip(layer.shape, follows, strict=True)
        ]
        if layer.width > 1:
            # Only whole groups go.
            ends[0] = tuple(sorted({-(-count // layer.width) * layer.width for count in ends[0]}))
        axes = tuple(-1 if axis is None else axis for axis in follows)
        found.append(LayerTable(layer, (axes[0], axes[1]), (ends[0], ends[1]), name))
    return found


def _knots(size: int, round_to: int) -> tuple[int, ...]:
    counts = np.geomspace(max(size / FINEST, 1), size, KNOTS)
    step = round_to if round_to > 1 else 2
    awkward = np.round(counts / step) * step - (round_to == 1)
    return tuple(np.unique(np.append(np.clip(awkward[:-1], min(round_to, size), size), size)).astype(int).tolist())


def assemble(
    graph: Graph, found: Iterable[LayerTable], milliseconds: Mapping[tuple[Layer, int, int], float]
) -> LatencyModel:
    """The latency by the tables alone; `fit` weighs them.

    Args:
        graph: structure of the network.
        found: what was measured.
        milliseconds: of every cell.
    """
    whole, per_channel = axis_sizes(graph)
    tables, knots, elements = [], [], np.zeros(len(whole))
    found = list(found)
    for plot in found:
        values = np.array([milliseconds[cell] for cell in plot.shapes()])
        tables.append(_padded(_monotone(values.reshape([len(counts) for counts in plot.counts]))))
        # Beyond the last measured count come knots that no size reaches.
        knots.append(
            [[*counts, *(counts[-1] + 1 + more for more in range(KNOTS - len(counts)))] for counts in plot.counts]
        )
        elements[plot.axes[0]] += plot.elements()
    # An axis that is never cut has one knot, its size; the constant 1 stays below it.
    ends = np.array([plot.axes for plot in found]).T
    weights = np.array([1.0, 0, 0, 0])
    return LatencyModel(
        whole,
        per_channel,
        ends[0],
        ends[1],
        np.array(knots, dtype=float).transpose(1, 0, 2),
        np.array(tables),
        elements,
        weights,
        tuple(block.groups for block in graph.blocks),
        tuple(_inside(block, found) for block in graph.blocks),
    )


def _inside(block: Block, found: Sequence[LayerTable]) -> tuple[np.ndarray, np.ndarray]:
    """The layers of a block, and the elements that one entry of the outputs of each stands for."""
    places = [place for place, plot in enumerate(found) if block.holds(plot.name)]
    elements = np.array([found[place].elements() for place in places], dtype=float)
    return np.array(places, dtype=np.int64), elements


def _monotone(table: np.ndarray) -> np.ndarray:
    """Half-way between the lowest table above and the highest one below that rise along both axes."""
    above = np.maximum.accumulate(np.maximum.accumulate(table, 0), 1)
    below = np.minimum.accumulate(np.minimum.accumulate(table[::-1, ::-1], 0), 1)[::-1, ::-1]
    return (above + below) / 2


def _padded(table: np.ndarray) -> np.ndarray:
    return np.pad(table, [(0, KNOTS - side) for side in table.shape], mode="edge")


def fit(latency: LatencyModel, cost: Cost, counts: np.ndarray, measured: np.ndarray) -> LatencyModel:
    """The latency with the weights that foretell whole networks best.

    Least squares of the relative errors with weights of at least 0, drawn to the tables alone times a factor, so that
    few measurements do not lead astray.

    Args:
        latency: the tables.
        cost: for the parameters.
        counts: (plans, groups) kept counts that were measured.
        measured: (plans,) their milliseconds.
    """
    from scipy.optimize import nnls  # takes a while to import, and most runs are not timed

    parts = latency.parts(counts, cost(counts)[..., 1]) / measured[:, None]
    scale = np.maximum(parts.mean(axis=0), 1e-30)
    drawn, firm = np.zeros(parts.shape[1]), PRIOR * np.sqrt(len(measured))
    drawn[0] = scale[0] * np.median(1 / parts[:, 0])
    rows = np.vstack([parts / scale, firm * np.eye(len(scale))])
    weights, _ = nnls(rows, np.concatenate([np.ones(len(measured)), firm * drawn]))
    return replace(latency, weights=weights / scale)
