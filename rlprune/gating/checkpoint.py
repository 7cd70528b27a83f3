"""A gated network as a folder: what no image needs is gone from it, and it skips the rest for real."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.gating.controller import KeepController
from rlprune.gating.gate import Gate, possible_wires, wires_of
from rlprune.gating.layout import Layout
from rlprune.gating.masks import permanent
from rlprune.gating.network import GatedNetwork
from rlprune.gating.skipping import SkippingNetwork
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import install, prune
from rlprune.models.checkpoint import read_weights, save_weights
from rlprune.models.registry import rebuild_model
from rlprune.plans.plan import PruningPlan
from rlprune.tracing.build import build_graph
from rlprune.tracing.selection import parse_choice
from rlprune.utils.files import FileFormat
from rlprune.utils.modules import named_tensors, shapes_of
from rlprune.utils.shapes import example, shape_of

GATES = "gates.json"
GATES_FORMAT = FileFormat("rlprune-gates")


def stored_mask(gated: GatedNetwork, runtime: KeepController) -> np.ndarray:
    """(all groups' channels,) bool, False for what no image ever needs."""
    mask = np.ones(sum(gated.graph.sizes), dtype=bool)
    for number, wire in enumerate(gated.wires):
        scores = gated.gate(number).static_scores().detach().cpu().numpy()[None]
        mask[wire.start : wire.stop] = ~permanent(scores, runtime.static.numpy()[number : number + 1], gated.mix)[0]
    return mask


def shrink(gated: GatedNetwork, runtime: KeepController) -> SkippingNetwork:
    """The network without the channels that no image ever needs, which changes no output.

    Args:
        gated: of the dense network; its hooks are removed.
        runtime: its agent.
    """
    mask = stored_mask(gated, runtime)
    inputs = [_stays(gated, wire.layer, mask) for wire in gated.wires]
    network = prune(gated.bare(), gated.graph, mask).cpu().eval()
    gates, policy = [], runtime.policy
    for number, (wire, seen) in enumerate(zip(gated.wires, inputs, strict=True)):
        gates.append(_cut_gate(gated.gate(number), seen, torch.from_numpy(mask[wire.start : wire.stop])))
    layout = Layout(
        tuple(map(len, inputs)), runtime.layout.channels, runtime.layout.shares, runtime.layout.ratios,
        runtime.layout.macs,
    )  # fmt: skip
    recurrent = policy is not None and policy.recurrent
    smaller = KeepController(layout, runtime.static, policy is not None, len(runtime.budgets), recurrent)
    if policy is not None:
        wide = policy.state_dict()
        for number, (seen, known) in enumerate(zip(inputs, runtime.layout.channels, strict=True)):
            name = f"encoders.{number}.weight"
            columns = torch.cat([seen, runtime.layout.inputs[number] + torch.arange(known)])
            wide[name] = wide[name][:, columns]
        assert smaller.policy is not None
        smaller.policy.load_state_dict(wide)
    smaller.budget = runtime.budget
    smaller.budgets.copy_(runtime.budgets)
    smaller.shifts.copy_(runtime.shifts)
    return _assemble(network, gated.graph.cut(mask), [wire.layer for wire in gated.wires], gates, gated.mix, smaller)


def _stays(gated: GatedNetwork, layer: str, mask: np.ndarray) -> Tensor:
    """Positions of a layer's inputs that are still there."""
    axis = next((axis for axis in gated.graph.axes if (axis.layer, axis.side) == (layer, "in")), None)
    if axis is None:
        convolution = gated.network.get_submodule(layer)
        assert isinstance(convolution, nn.Conv2d)
        return torch.arange(convolution.in_channels)
    return torch.from_numpy(np.flatnonzero(np.append(mask, True)[axis.slots]))


def _cut_gate(gate: Gate, seen: Tensor, stored: Tensor) -> Gate:
    """The same gate for fewer inputs."""
    smaller = Gate(len(seen), len(gate.scale), gate.predictor is not None)
    tensors = gate.state_dict() | {"stored": stored}
    if gate.predictor is not None:
        tensors["predictor.weight"] = tensors["predictor.weight"][:, seen.to(gate.scale.device)]
    smaller.load_state_dict(tensors)
    return smaller


def _assemble(
    network: nn.Module, graph: Graph, layers: Sequence[str], gates: list[Gate], mix: float, runtime: KeepController
) -> SkippingNetwork:
    """A cut network with gates before some of its layers."""
    gated = GatedNetwork(network, graph, wires_of(graph, layers), gates, mix)
    gated.runtime = runtime
    return SkippingNetwork(gated).eval()


def gate_params(module: SkippingNetwork) -> int:
    """Parameters of predictors, static importance and policy: what is stored besides the network."""
    runtime = module.runtime.policy
    parts: list[nn.Module] = [*module.gated.gates, *([runtime] if runtime is not None else [])]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def save_gated(module: SkippingNetwork, folder: Path) -> None:
    """Write `model.safetensors` and `gates.json` beside a `plan.json` that says what is stored.

    Args:
        module: from `shrink`.
        folder: where to.
    """
    gated, runtime = module.gated, module.runtime
    layout = runtime.layout
    about: dict[str, Any] = {
        "layers": [wire.layer for wire in gated.wires],
        "mix": gated.mix,
        "predicts": gated.gate(0).predictor is not None,
        "acts": runtime.policy is not None,
        "recurrent": runtime.policy is not None and runtime.policy.recurrent,
        "budget": runtime.budget,
        "points": len(runtime.budgets),
        "inputs": list(layout.inputs),
        "channels": list(layout.channels),
        "shares": layout.shares.tolist(),
        "ratios": layout.ratios.tolist(),
        "macs": layout.macs.tolist(),
    }
    save_weights(named_tensors(gated), folder / "model.safetensors")
    GATES_FORMAT.write(folder / GATES, about)


def load_gated(folder: Path, plan: PruningPlan) -> SkippingNetwork:
    """What `save_gated` has written.

    Args:
        folder: with `gates.json`, `model.safetensors` and `plan.json`.
        plan: the one in the folder.

    Raises:
        UserError: they do not fit together.
    """
    about = GATES_FORMAT.read(folder / GATES)
    tensors = read_weights(folder / "model.safetensors")
    try:
        return _load(about, tensors, plan)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError, RuntimeError) as error:
        raise UserError(f"{folder} is damaged: {GATES} and model.safetensors do not fit plan.json") from error


def _load(about: Mapping[str, Any], tensors: Mapping[str, Tensor], plan: PruningPlan) -> SkippingNetwork:
    inputs, channels = (tuple(map(int, about[name])) for name in ("inputs", "channels"))
    curves = (np.array(about[name], dtype=float) for name in ("shares", "ratios", "macs"))
    layout = Layout(inputs, channels, *curves)
    network = rebuild_model(plan.network)
    dense = build_graph(network, example(shape_of(plan.network)), parse_choice(plan.network))
    possible = possible_wires(network, dense)
    # Version 0.1.0 does not name them: it has put a gate wherever one can be.
    named = about.get("layers", [wire.layer for wire in possible])
    gated = [wire for wire in possible if wire.layer in named]
    if [(wire.layer, wire.stop - wire.start) for wire in gated] != list(zip(named, channels, strict=True)):
        raise ValueError("gates of other layers")
    install(network, network, _under("network.", tensors), trainable=True)
    beside = {name: tensor for name, tensor in tensors.items() if not name.startswith("network.")}
    with torch.device("meta"):
        expected = nn.ModuleDict(_decide(about, layout)).state_dict()
    # Before there is memory for them: the sizes in the file may be anything.
    if shapes_of(expected) != shapes_of(beside):
        raise ValueError("gates of other sizes")
    decide = _decide(about, layout)
    nn.ModuleDict(decide).load_state_dict(beside)
    gates, runtime = [gate for gate in decide["gates"].children() if isinstance(gate, Gate)], decide["runtime"]
    assert isinstance(runtime, KeepController)
    runtime.budget = float(about["budget"])
    return _assemble(network.eval(), dense.cut(plan.mask(dense)), named, gates, float(about["mix"]), runtime)


def _decide(about: Mapping[str, Any], layout: Layout) -> dict[str, nn.Module]:
    """Gates and agent, by the names that they have in the file."""
    predicts, acts, points = bool(about["predicts"]), bool(about["acts"]), int(about["points"])
    sizes = zip(layout.inputs, layout.channels, strict=True)
    gates = nn.ModuleList(Gate(seen, size, predicts) for seen, size in sizes)
    runtime = KeepController(layout, torch.ones(len(gates)), acts, points, bool(about.get("recurrent")))
    return {"gates": gates, "runtime": runtime}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
