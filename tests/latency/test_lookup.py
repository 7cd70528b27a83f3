"""Single layers really run, though nobody asks how long."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlprune.latency import lookup
from rlprune.latency.backends import Backend
from rlprune.latency.layers import Layer, as_module
from rlprune.latency.lookup import measure_layers, time_layers
from rlprune.latency.timing import quick_latency
from rlprune.models.registry import rebuild_model

WIDE = Layer(2, (9, 7), (3, 1), (2, 1), (1, 0), (1, 1), 1, 0, (8, 6))
DEPTH = Layer(2, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 8, 1, (8, 1))
LINE = Layer(0, (3,), (), (), (), (), 1, 0, (5, 12))
SIGNAL = Layer(1, (20,), (5,), (1,), (2,), (1,), 2, 0, (8, 3))


@pytest.mark.parametrize("layer", [WIDE, DEPTH, LINE, SIGNAL])
def test_onnx_runtime_runs_the_same_layer(layer: Layer) -> None:
    torch.manual_seed(0)
    module, shape = as_module(layer, 4, layer.shape[1])
    torch.nn.init.zeros_(module.bias)
    images = torch.randn(2, *shape)
    expected = module(images).detach()
    found = torch.from_numpy(lookup._onnxruntime(layer, module, images, Backend("onnxruntime", 2))()[0])  # type: ignore[index]
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_every_cell_gets_a_time(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(lookup, "ROUNDS", (1, 1))
    asked = [[layer.as_dict(), outputs, layer.shape[1]] for layer in (WIDE, DEPTH, LINE, SIGNAL) for outputs in (2, 4)]
    times = time_layers(asked * 4, Backend(backend).as_dict())
    assert len(times) == 32
    assert min(times) > 0


def test_what_is_known_is_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def answer(function: object, **arguments: Any) -> list[float]:
        asked.append([(outputs, inputs) for _, outputs, inputs in arguments["shapes"]])
        return [float(outputs + inputs) for outputs, inputs in asked[-1]]

    monkeypatch.setattr(lookup, "run_isolated", answer)
    monkeypatch.setattr(lookup, "cache_folder", lambda: tmp_path)
    wider = Layer(*[*vars(WIDE).values()][:-1], (64, 64))
    assert measure_layers([(WIDE, 2, 3), (WIDE, 4, 3)], Backend()) == {(WIDE, 2, 3): 5.0, (WIDE, 4, 3): 7.0}
    # The same layer of a wider network, and torch.compile, which leaves single layers to torch.
    assert measure_layers([(wider, 4, 3), (wider, 40, 3)], Backend("compile"))[wider, 40, 3] == 43.0
    measure_layers([(WIDE, 2, 3)], Backend(batch=2))
    assert asked == [[(2, 3), (4, 3)], [(40, 3)], [(2, 3)]]


def test_a_quick_look_has_both_times() -> None:
    modules = [
        rebuild_model({"model": "resnet20", "args": {"width": width}, "classes": 4, "image_size": 16}).eval()
        for width in (0.5, 0.25)
    ]
    found = quick_latency(*modules, (3, 16, 16))
    assert (found["backend"], found["batch"], found["device"], found["noise"]) == ("torch", 1, "cpu", "")
    assert np.all(np.array([found["dense_ms"], found["pruned_ms"]]) > 0)
