"""Gated networks to test with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.cost.exact import Cost, build_cost
from rlprune.gating.agreement import sound_wires
from rlprune.gating.controller import KeepController
from rlprune.gating.gate import make_gates, possible_wires, wires_of
from rlprune.gating.layout import make_layout
from rlprune.gating.network import GatedNetwork
from rlprune.graph.structure import Graph
from rlprune.models.registry import build_model
from rlprune.tracing.build import build_graph
from rlprune.tracing.selection import EVERYTHING, Choice

MODELS = {"vgg11": 0.15, "resnet20": 0.3, "mobilenetv2": 0.15, "mcifarnet": 0.1}
PIXELS = 32


@dataclass
class Made:
    """A dense network, the same with gates, and what is known of it."""

    dense: nn.Module
    gated: GatedNetwork
    runtime: KeepController
    graph: Graph
    cost: Cost


def gate(
    dense: nn.Module,
    mix: float = 1.0,
    *,
    predicts: bool = True,
    acts: bool = True,
    recurrent: bool = False,
    size: int = PIXELS,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    choice: Choice = EVERYTHING,
) -> Made:
    """Gates with opinions of their own, so that images differ in what they keep; before some layers, or all."""
    import copy

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    graph = build_graph(dense.eval(), torch.zeros(1, 3, size, size), choice)
    network, cost = copy.deepcopy(dense), build_cost(graph)
    wires, _ = sound_wires(network, graph, possible_wires(network, graph), images(3, size=size))
    wires = wires if layers is None else wires_of(graph, layers)
    gates = make_gates(network, wires, rng.random(sum(graph.sizes)) + 0.5, predicts)
    gated = GatedNetwork(network, graph, wires, gates, mix)
    layout = make_layout(gated, cost)
    static = torch.as_tensor(rng.uniform(0.4, 0.9, len(gates)))
    runtime = KeepController(layout, static, acts, recurrent=recurrent)
    runtime.budget = float(np.interp(0.6, layout.ratios, layout.macs))
    with torch.no_grad():
        for each in gated.gates:
            each.scale.uniform_(0.5, 1.5)
            if each.predictor is not None:
                each.predictor.weight.normal_(std=0.1)
        if runtime.policy is not None:
            runtime.policy.head.weight.normal_(std=1.0)
    gated.runtime = runtime
    return Made(dense, gated.eval(), runtime, graph, cost)


def network(name: str) -> nn.Module:
    """One of `MODELS`, its batch norms with statistics that matter."""
    torch.manual_seed(1)
    module = build_model(name, classes=4, image_size=PIXELS, args={"width": MODELS[name]})
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(16, 3, PIXELS, PIXELS))
    return module.eval()


def images(number: int, seed: int = 2, size: int = PIXELS) -> Tensor:
    """Images of noise, some brighter than others."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, 3, size, size, generator=generator)
    return noise * torch.linspace(0.3, 2, number)[:, None, None, None]
