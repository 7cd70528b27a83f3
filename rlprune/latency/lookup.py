"""Milliseconds of single layers at given numbers of channels: measured in a process of their own, and remembered."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprune.execution.isolated import run_isolated
from rlprune.latency.backends import Backend, Run, wait_for
from rlprune.latency.layers import Layer, as_module, read_layer
from rlprune.latency.timing import interleave
from rlprune.utils.device import machine
from rlprune.utils.files import FileFormat, cache_folder

CACHE_FORMAT = FileFormat("rlprune-latency-cache")
CHUNK = 25
"""Cells that take turns; more would be fairer and take more memory."""
SECONDS = 0.04
"""Time for each layer."""
ROUNDS = (5, 200)
LOW = 0.25
"""The quantile that stands for a layer: other programs only ever make one slower."""
LayerShape = tuple[Layer, int, int]
"""A layer, its outputs, and the inputs of each of its groups."""


class LookupTable:
    """What was measured on this machine before, in the user's cache folder.

    Args:
        backend: how it is run; each has a file of its own.
    """

    def __init__(self, backend: Backend) -> None:
        who = {"machine": machine(), "onnxruntime": _version("onnxruntime"), **backend.as_dict()}
        name = hashlib.sha256(json.dumps(who, sort_keys=True).encode()).hexdigest()[:16]
        self.path: Path = cache_folder() / "latency" / f"{name}.json"
        self.known: dict[str, Any] = {}
        self.head = {"measured_with": who}
        if self.path.is_file():
            self.known = CACHE_FORMAT.read(self.path)["known"]

    def add(self, found: dict[str, Any]) -> None:
        """Remember more."""
        self.known |= found
        CACHE_FORMAT.write(self.path, self.head | {"known": self.known})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measure_layers(shapes: Iterable[LayerShape], backend: Backend) -> dict[LayerShape, float]:
    """Milliseconds of every layer; those that are not remembered are measured now."""
    wanted = {shape: _key(shape) for shape in shapes}
    table = LookupTable(_alone(backend))
    new = {key: shape for shape, key in wanted.items() if key not in table.known}
    if new:
        given = [[layer.as_dict(), outputs, inputs] for layer, outputs, inputs in new.values()]
        found = run_isolated(time_layers, threads=backend.threads, shapes=given, backend=_alone(backend).as_dict())
        table.add(dict(zip(new, found, strict=True)))
    return {shape: table.known[key] for shape, key in wanted.items()}


def _alone(backend: Backend) -> Backend:
    """Single layers are run by torch as it is where torch.compile would take seconds for each of them."""
    return Backend("torch", backend.batch, backend.threads, backend.device) if backend.name == "compile" else backend


def _key(shape: LayerShape) -> str:
    """What makes a layer take its time; how wide the dense layer is does not."""
    layer, outputs, inputs = shape
    facts = {name: value for name, value in layer.as_dict().items() if name not in ("shape", "width", "groups")}
    return json.dumps([*facts.values(), layer.groups_at(outputs), outputs, inputs])


def time_layers(shapes: list[list[Any]], backend: dict[str, Any]) -> list[float]:
    """Measure layers here and now; called in a process of its own."""
    there, found = Backend.from_dict(backend), []
    torch.set_num_threads(there.threads)
    for start in range(0, len(shapes), CHUNK):
        chunk = shapes[start : start + CHUNK]
        runs = [_run(read_layer(layer), outputs, inputs, there) for layer, outputs, inputs in chunk]
        times = interleave(runs, SECONDS * len(runs), ROUNDS)
        found += np.quantile(times, LOW, axis=0).tolist()
    return found


def _run(layer: Layer, outputs: int, inputs: int, backend: Backend) -> Run:
    module, shape = as_module(layer, outputs, inputs)
    images = torch.randn(backend.batch, *shape)
    if backend.name == "onnxruntime":
        return _onnxruntime(layer, module, images, backend)
    device = torch.device(backend.device)
    module, images = module.to(device), images.to(device)

    def run() -> object:
        with torch.inference_mode():
            result = module(images)
        wait_for(device)
        return result

    return run


def _onnxruntime(layer: Layer, module: torch.nn.Module, images: torch.Tensor, backend: Backend) -> Run:
    """One node, made by hand: the exporter would take a second for each."""
    from onnx import TensorProto, helper, numpy_helper

    from rlprune.exports.onnx import open_session

    # A linear layer takes matrices here.
    array = (images if layer.dims else images.flatten(0, -2)).numpy()
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in module.named_parameters()]
    options: dict[str, Any] = {"transB": 1}
    if layer.dims:
        options = {"kernel_shape": layer.kernel, "strides": layer.stride, "dilations": layer.dilation}
        options |= {"pads": layer.padding * 2, "group": module.groups}
    node = helper.make_node("Conv" if layer.dims else "Gemm", ["x", "weight", "bias"], ["y"], **options)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", array.shape), ("y", None))
    ]
    graph = helper.make_graph([node], "cell", ends[:1], ends[1:], weights)
    # Old enough for any ONNX Runtime of today.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_session(model.SerializeToString(), backend.threads, backend.device)
    return lambda: session.run(None, {"x": array})
