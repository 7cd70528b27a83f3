"""ONNX files against torch, run by ONNX Runtime without our code."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.exports import onnx as onnx_export


class Small(nn.Module):
    """A convolution, its batch norm, something in between, a classifier."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.between = between
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    module, path = Small().eval(), tmp_path_factory.mktemp("onnx") / "small.onnx"
    return module, path, onnx_export.write_onnx(module, (3, 8, 8), path)


def run(path: Path, images: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def test_a_file_computes_what_torch_computes(exported: Any) -> None:
    module, path, facts = exported
    for number in (1, 3, 16):
        images = torch.randn(number, 3, 8, 8)
        assert np.abs(run(path, images) - module(images).detach().numpy()).max() < 1e-5
    assert 0 <= facts["max_error"] < 1e-5
    assert facts["bytes"] == path.stat().st_size
    assert (facts["inputs"], facts["outputs"]) == ({"images": ["batch", 3, 8, 8]}, {"logits": ["batch", 4]})
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "Conv" in kinds
    assert "BatchNormalization" not in kinds


def test_a_network_on_several_devices(exported: Any, tmp_path: Path) -> None:
    module, _, facts = exported
    again = onnx_export.write_onnx(nn.DataParallel(module), (3, 8, 8), tmp_path / "small.onnx")
    assert again == facts


def test_a_file_that_computes_something_else_is_refused(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, path, _ = exported
    monkeypatch.setattr(onnx_export, "save_onnx", lambda module, size, other: other.write_bytes(path.read_bytes()))
    torch.manual_seed(1)
    other = Small().eval()
    with pytest.raises(
        UserError, match=r"differs from torch by .* of its largest output, more than 0\.0001: it was not"
    ):
        onnx_export.write_onnx(other, (3, 8, 8), tmp_path / "other.onnx")
    with torch.no_grad():
        module.last.bias[0] += (shift := 2e-4)
    with pytest.raises(UserError, match=r"differs from torch by 0\.0002"):
        onnx_export.write_onnx(module, (3, 8, 8), tmp_path / "other.onnx")
    with torch.no_grad():
        module.last.bias[0] -= shift
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [1.0, 50.0, 1000.0])
def test_rounding_grows_with_the_logits(scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is 1e-5 of the logits away is right at any scale, one that is 1e-3 away at none."""
    torch.manual_seed(0)
    module, factor = Small().eval(), [1.0]
    with torch.no_grad():
        largest = module(torch.randn(64, 3, 8, 8)).abs().max()
        for tensor in (module.last.weight, module.last.bias):
            tensor *= scale / largest
    write = onnx_export.save_onnx

    def off(network: Any, shape: Any, path: Path) -> None:
        with torch.no_grad():
            network.last.weight *= factor[0]
            network.last.bias *= factor[0]
            write(network, shape, path)
            network.last.weight /= factor[0]
            network.last.bias /= factor[0]

    monkeypatch.setattr(onnx_export, "save_onnx", off)
    factor[0] = 1 + 1e-5
    facts = onnx_export.write_onnx(module, (3, 8, 8), tmp_path / "right.onnx")
    assert facts["max_error"] == pytest.approx(1e-5 * scale, rel=0.5)
    factor[0] = 1 + 1e-3
    with pytest.raises(UserError, match="of its largest output, more than"):
        onnx_export.write_onnx(module, (3, 8, 8), tmp_path / "wrong.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["right.onnx"]


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^ONNX has no operator for aten\._linalg_svd, which") as caught:
        onnx_export.write_onnx(Small(lambda x: torch.linalg.svd(x)[0]).eval(), (3, 8, 8), tmp_path / "small.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(UserError) as caught:
        onnx_export.require_onnx()
    assert str(caught.value) == f"ONNX needs {package}: pip install 'rlprune[onnx]'"


def test_eight_bits_are_near(exported: Any, tmp_path: Path) -> None:
    _, path, _ = exported
    images = torch.randn(64, 3, 8, 8)
    onnx_export.quantise(path, tmp_path / "int8.onnx", images)
    weights = {entry.name: entry for entry in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    conv = next(entry for name, entry in weights.items() if name.startswith("conv.weight") and len(entry.dims) == 4)
    assert conv.data_type == onnx.TensorProto.INT8
    # Seven bits, so that 16-bit sums of two products cannot overflow.
    assert np.abs(onnx.numpy_helper.to_array(conv).astype(int)).max() == 64
    exact, rough = run(path, images), run(tmp_path / "int8.onnx", images)
    assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


def test_a_device_that_is_not_there(exported: Any) -> None:
    with pytest.raises(UserError, match="this ONNX Runtime does not run on mps"):
        onnx_export.open_session(exported[1], device="mps")
