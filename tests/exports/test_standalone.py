"""Networks that left rlprune behind compute what they computed, where only torch is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.evaluation.sliced import recalibrate
from rlprune.exports.standalone import _imported, write_program, write_python
from rlprune.models.registry import build_model

ALONE = """
import sys, warnings

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rlprune", "safetensors", "torchvision"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import torch
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

torch.set_num_threads(1)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    spec = spec_from_file_location(folder.name, folder / "model.py")
    model = module_from_spec(spec)
    spec.loader.exec_module(model)
    network = model.load()
    for images, expected in torch.load(folder / "expected.pt", weights_only=True):
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
        if (folder / "model.pt2").is_file():
            again = torch.export.load(folder / "model.pt2").module()
            torch.testing.assert_close(again(images), expected, rtol=1e-5, atol=1e-5)
    print(folder.name)
"""


class Odd(nn.Module):
    """A number that is no parameter, a buffer that no state dict holds, a shape computed from the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("shift", torch.randn(4, 1, 1), persistent=False)
        self.scale = nn.Parameter(torch.randn(()))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images).relu_() * self.scale + self.shift
        x = x.reshape(x.size(0) * 2, -1).masked_fill(torch.tensor(False), float("-inf"))
        offsets = torch.arange(3, device=images.device, dtype=torch.float32)
        return x.reshape(images.shape[0], -1).mean(1, keepdim=True) * torch.tensor([1.0, 0.5, 0.25]) + offsets


NETWORKS: dict[str, tuple[Any, int]] = {
    "odd": (Odd, 8),
    "vgg16": (lambda: build_model("vgg16", classes=4, image_size=32, args={"width": 0.1}), 32),
    "resnet20": (lambda: build_model("resnet20", classes=4, image_size=32, args={"width": 0.25}), 32),
    "mobilenetv2": (lambda: build_model("mobilenetv2", classes=4, image_size=32, args={"width": 0.15}), 32),
    "shufflenet": (lambda: build_model("torchvision/shufflenet_v2_x0_5", classes=4, image_size=64), 64),
}


def test_they_run_where_only_torch_is(tmp_path: Path) -> None:
    for name, (make, size) in NETWORKS.items():
        torch.manual_seed(0)
        network = make()
        # With statistics of its own, so that images make a difference.
        recalibrate(network, torch.randn(32, 3, size, size))
        write_python(network, (3, size, size), tmp_path / name, f'{name} "quoted" \\')
        if name in ("odd", "resnet20"):
            write_program(network, (3, size, size), tmp_path / name / "model.pt2")
        images = [torch.randn(batch, 3, size, size) for batch in (1, 3, 8)]
        with torch.no_grad():
            pairs = [(some, network(some)) for some in images]
        assert pairs[1][1].std(0).max() > 1e-3
        torch.save(pairs, tmp_path / name / "expected.pt")
        kept = {"model.py", "model.safetensors", "expected.pt", "model.pt2"}
        assert {path.name for path in (tmp_path / name).iterdir()} <= kept
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", ALONE, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.split() == sorted(NETWORKS), done.stderr


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    write_python(Odd().eval(), (3, 8, 8), folder, "odd")
    return folder


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def shifted(data: bytes) -> bytes:
    header, body = header_of(data)
    name = next(name for name in header if name != "__metadata__")
    header[name]["data_offsets"][1] += 4
    return with_header(header, body)


def reshaped(data: bytes) -> bytes:
    header, body = header_of(data)
    next(entry for entry in header.values() if "shape" in entry)["shape"] = [1, 2]
    return with_header(header, body)


@pytest.mark.parametrize(
    "spoil", [shifted, reshaped, lambda data: data[:-4], lambda data: data + b"1234", lambda data: data[:7]]
)
def test_the_reader_refuses_damaged_files(odd: Path, tmp_path: Path, spoil: Any) -> None:
    model = _imported(odd / "model.py")
    (tmp_path / "bad.safetensors").write_bytes(spoil((odd / "model.safetensors").read_bytes()))
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        model.load(tmp_path / "bad.safetensors")


def test_the_reader_reads_every_type(odd: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    kinds = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    tensors = {str(kind): torch.tensor([[0, 1], [1, 1]]).to(kind) for kind in kinds}
    tensors |= {"one": torch.tensor(7), "none": torch.zeros(0, 3)}
    save_file(tensors, tmp_path / "all.safetensors", {"about": "nothing"})
    found = _imported(odd / "model.py").read_safetensors(tmp_path / "all.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert all(found[name].dtype == tensors[name].dtype for name in tensors)


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    for write, path in ((write_program, tmp_path / "a.pt2"), (write_python, tmp_path / "b")):
        more = () if write is write_program else ("choosing",)
        with pytest.raises(UserError, match=r"torch\.export cannot follow this network: \S"):
            write(Choosing(), 8, path, *more)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.exports.standalone._check", lambda again, module, size: _raise())
    for write, path in ((write_program, tmp_path / "a.pt2"), (write_python, tmp_path)):
        with pytest.raises(UserError, match="differs"):
            write(Odd().eval(), (3, 8, 8), path, *(() if write is write_program else ("odd",)))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def _raise() -> None:
    raise UserError("differs")
