"""Images that are grey, transparent or not square, from a folder of them to what is written, run and timed."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from workshop import NET

import rlprune
from rlprune.latency.timing import build, quick_latency, time_networks
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import open_workload

NETWORK = NET.replace("classes, width)", "classes, width, channels)").replace("nn.Conv2d(3,", "nn.Conv2d(channels,")
FACTORIES = """

def make(num_classes, in_channels, width=8):
    return Net(num_classes, width, in_channels)


def told(num_classes, in_channels, image_size):
    height, width = image_size
    return nn.Sequential(Net(8, 8, in_channels), nn.ReLU(), nn.Linear(8, num_classes + height - width + 8))


def colour(num_classes):
    return Net(num_classes, 8, 3)
"""


def write_stripes(root: Path, mode: str) -> None:
    """Images 20 pixels wide and 12 high: stripes, of another width for each class, and noise."""
    rng, channels = np.random.default_rng(0), len(Image.new(mode, (1, 1)).getbands())
    for part, count in (("train", 50), ("test", 15)):
        for number, name in enumerate("abc", start=1):
            (root / part / name).mkdir(parents=True)
            wave = 50 * np.sin(np.arange(20) * number)[None, :, None]
            for image in range(count):
                pixels = np.clip(128 + wave + rng.normal(0, 40, (12, 20, channels)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels.squeeze()).save(root / part / name / f"{image:02}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    (root / "net.py").write_text(NETWORK.partition("\ndef make")[0] + FACTORIES)
    for mode in ("L", "RGBA"):
        write_stripes(root / mode, mode)
    return root


@pytest.fixture(scope="module")
def settings(place: Path) -> dict[str, Any]:
    given = {"model": f"{place / 'net.py'}:make", "data": f"folder:{place / 'L'}", "device": "cpu"}
    return given | {"image_size": "12x20", "channels": 1, "search_images": 30, "calibration_images": 24}


@pytest.fixture(scope="module")
def grey(place: Path, settings: dict[str, Any]) -> Any:
    """A finished search on grey images that are not square."""
    budget: dict[str, Any] = {"budget": 0.4, "evaluations": 28, "train_epochs": 6, "finetune_epochs": 2}
    # After six epochs of 120 images the dense network knows less than it would teach.
    budget["distill"] = False
    folder = place / "run"
    return SimpleNamespace(folder=folder, result=rlprune.search(**settings, **budget, out=folder))


def counted_macs(module: torch.nn.Module, *shape: int) -> int:
    """Multiply-accumulates of one image: of every layer, its weights at each position of its output."""
    found: list[int] = []

    def hook(layer: Any, _: object, output: torch.Tensor) -> None:
        found.append(layer.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1))

    layers = [layer for layer in module.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    module(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return sum(found)


def test_a_search_is_kept_with_the_shape_of_its_images(grey: Any) -> None:
    for path in (grey.folder / "plan.json", grey.folder / "pruned" / "plan.json"):
        content = json.loads(path.read_text())
        assert (content["network"]["image_size"], content["network"]["channels"]) == ("12x20", 1)
        kept = content["provenance"]["data_settings"]
        assert (kept["image_size"], kept["channels"]) == ("12x20", 1)
    module = rlprune.load(grey.folder)
    assert module(torch.randn(1, 1, 12, 20)).shape == (1, 3)
    assert module(torch.randn(5, 1, 12, 20)).shape == (5, 3)
    assert grey.result["macs_ratio"] <= 0.4
    assert grey.result["pruned_macs"] == counted_macs(module, 1, 12, 20)
    card = (grey.folder / "pruned" / "README.md").read_text(encoding="utf-8")
    assert "It takes images of 12 x 20 pixels and 1 channel, normalised" in card


def test_eval_counts_what_pillow_and_numpy_count(grey: Any, place: Path, run_json: Callable[..., Any]) -> None:
    found = run_json("eval", grey.folder, "--device", "cpu")
    train, test = (
        {path: np.asarray(Image.open(path)) / 255 for path in sorted((place / "L" / part).glob("*/*.png"))}
        for part in ("train", "test")
    )
    everything = np.stack([*train.values()])
    images = (np.stack([*test.values()]) - everything.mean()) / everything.std()
    with torch.no_grad():
        logits = rlprune.load(grey.folder)(torch.from_numpy(images).float()[:, None])
    right = [path.parent.name == "abc"[answer] for path, answer in zip(test, logits.argmax(1).tolist(), strict=True)]
    assert found["test_accuracy"] == pytest.approx(np.mean(right))
    assert found["test_accuracy"] == grey.result["finetuned_accuracy"] > 0.5
    assert found["macs"] == grey.result["pruned_macs"]


def test_onnx_takes_the_same_images(grey: Any, place: Path, run_json: Callable[..., Any]) -> None:
    import onnxruntime

    found = run_json("export", grey.folder, "--format", "onnx", "--int8", "--out", place / "model.onnx")
    assert found["inputs"] == {"images": ["batch", 1, 12, 20]}
    session, images = onnxruntime.InferenceSession(str(place / "model.onnx")), torch.randn(3, 1, 12, 20)
    with torch.no_grad():
        expected = rlprune.load(grey.folder)(images)
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected.numpy(), atol=1e-4)
    assert found["int8_accuracy"] == pytest.approx(found["float_accuracy"], abs=0.2)


def test_python_and_torch_export_take_the_same_images(grey: Any, place: Path, run_json: Callable[..., Any]) -> None:
    path = Path(run_json("export", grey.folder, "--format", "python", "--out", place / "alone")["path"])
    assert "(batch, 1, 12, 20), normalised as in training" in path.read_text()
    spec: Any = importlib.util.spec_from_file_location("alone", path)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    program = run_json("export", grey.folder, "--format", "torch-export", "--out", place / "model.pt2")["path"]
    images = torch.randn(3, 1, 12, 20)
    with torch.no_grad():
        expected = rlprune.load(grey.folder)(images)
        torch.testing.assert_close(alone.load()(images), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.export.load(program).module()(images), expected, atol=1e-5, rtol=1e-5)


def test_networks_are_timed_on_such_images(
    grey: Any, settings: dict[str, Any], run_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def here(function: object, **given: Any) -> list[list[float]]:
        assert function is time_networks
        asked.append([build(subject) for subject in given["subjects"]])
        return time_networks(given["subjects"], given["backend"], 0.01)

    monkeypatch.setattr("rlprune.commands.bench.run_isolated", here)
    quick = ["--device", "cpu", "--threads", "1", "--backend", "torch,onnxruntime", "--batch", "2"]
    of_run = run_json("bench", grey.folder, *quick)
    alone = run_json("bench", "--model", settings["model"], "--image-size", "12x20", "--channels", 1, *quick)
    for result in (of_run, alone):
        assert [row["refused"] for row in result["results"]] == [None, None]
    assert of_run["dense_macs"] == counted_macs(asked[0][0][0], 1, 12, 20) == grey.result["dense_macs"]
    assert {shape for subjects in asked for _, shape in subjects} == {(1, 12, 20)}
    dense, pruned = (module for module, _ in asked[0])
    assert quick_latency(dense, pruned, (1, 12, 20))["dense_ms"] > 0


def test_what_a_run_knows_of_its_images_serves_later_commands(
    grey: Any, place: Path, settings: dict[str, Any], run_json: Callable[..., Any]
) -> None:
    tuned = run_json("finetune", grey.folder, "--epochs", 1, "--device", "cpu", "--out", place / "tuned")
    assert tuned["after"] > 0.5
    replayed = run_json("replay", grey.folder, "--budget", 0.5, "--device", "cpu", "--out", place / "replayed")
    assert replayed["dense_macs"] == grey.result["dense_macs"]
    cut = run_json("prune", "--plan", grey.folder, "--device", "cpu", "--out", place / "cut")
    assert cut["pruned_macs"] == grey.result["pruned_macs"]
    words = ["--data", settings["data"], "--image-size", "12x20", "--channels", 1, "--device", "cpu"]
    shown = run_json("inspect", "--model", settings["model"], *words)
    assert (shown["macs"], shown["image_size"]) == (grey.result["dense_macs"], "12x20")


def test_networks_with_gates(place: Path, settings: dict[str, Any]) -> None:
    how: dict[str, Any] = {
        "mode": "runtime",
        "budget": 0.6,
        "rounds": 1,
        "rollouts": 2,
        "train_epochs": 1,
        "finetune_epochs": 1,
    }
    folder = place / "gates"
    result = rlprune.search(**settings, **how, out=folder)
    module = rlprune.load(folder)
    assert module(torch.randn(1, 1, 12, 20)).shape == (1, 3)
    found = rlprune.eval(source=folder, device="cpu")
    assert found["test_accuracy"] == pytest.approx(result["test_accuracy"])


@pytest.mark.parametrize("given", [{}, {"mean": "0.5,0.5,0.5,0.5", "std": "0.2,0.2,0.2,0.2"}])
def test_transparent_images(place: Path, settings: dict[str, Any], given: dict[str, str]) -> None:
    settings = settings | {"data": f"folder:{place / 'RGBA'}", "channels": 4, "image_size": 16, **given}
    weights = place / f"transparent-{len(given)}.safetensors"
    rlprune.train(**settings, epochs=1, out=weights)
    workload = open_workload(settings | {"checkpoint": weights} | {"mean": None, "std": None}, Progress())
    assert (workload.network["channels"], workload.network["image_size"]) == (4, 16)
    assert workload.data.test.take(torch.arange(2))[0].shape == (2, 4, 16, 16)
    assert rlprune.eval(**settings, checkpoint=weights)["macs"] == counted_macs(workload.module, 4, 16, 16)


def test_a_factory_is_told_what_it_asks_for(settings: dict[str, Any]) -> None:
    """Height and width of images that are not square, a number of square ones, and nothing that it has no name for."""
    model = settings["model"].replace(":make", ":told")
    workload = open_workload(settings | {"model": model}, Progress())
    assert workload.module(torch.zeros(1, 1, 12, 20)).shape == (1, 3)
    with pytest.raises(TypeError, match="int"):
        open_workload(settings | {"model": model, "image_size": 16}, Progress())
    colour = settings | {"model": model.replace(":told", ":colour"), "channels": 3}
    assert open_workload(colour, Progress()).network["image_size"] == "12x20"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--image-size", "32x"], "image_size is '32x': expected a whole number or height x width such as 32x48"),
        (["--image-size", "0x5"], "image_size is '0x5': expected a whole number or height x width"),
        (["--image-size", "5000x5"], "image_size is '5000x5': expected a whole number or height x width"),
        (["--image-size", "0"], "image_size is 0: expected at least 1"),
        (["--channels", "2"], "channels is '2': expected 1 for grey, 3 for colour or 4 with transparency"),
        (["--channels", "grey"], "channels is 'grey': expected 1 for grey"),
        (["--channels", "1", "--mean", "0.4,0.5,0.6"], "mean is 0.4, 0.5, 0.6: expected one number, for grey"),
        (["--channels", "4", "--std", "1,1,1"], "std is 1.0, 1.0, 1.0: expected four numbers above 0, for red, green,"),
        (
            ["--channels", "1"],
            "resnet20 does not take images of 1 channel, it is made for 3: give --channels 3, or use",
        ),
        (["--channels", "1", "--model", "torchvision/resnet18"], "torchvision/resnet18 does not take images of 1 chan"),
        (["--channels", "4", "--model", "FILE:colour"], "the network does not take images of 4 channels: "),
    ],
)
def test_mistakes(run: Callable[..., Any], place: Path, tmp_path: Path, given: list[str], said: str) -> None:
    words = [word.replace("FILE", str(place / "net.py")) for word in given]
    images = ["--data", f"folder:{place / 'RGBA'}", "--device", "cpu", "--out", tmp_path / "run"]
    code, out, err = run("search", "--model", "resnet20", "--budget", 0.5, *images, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("rlprune: error:") == 1
    assert not (tmp_path / "run").exists()


def test_images_of_other_channels_than_the_networks(grey: Any, run: Callable[..., Any]) -> None:
    code, _, err = run("eval", grey.folder, "--channels", 3, "--device", "cpu")
    assert code == 2
    assert "is read with 3 channels and the network in" in err
    assert "takes 1" in err


def test_networks_of_timm(settings: dict[str, Any]) -> None:
    pytest.importorskip("timm")
    given = settings | {"model": "timm/resnet18", "image_size": "32x48"}
    assert open_workload(given, Progress()).module(torch.zeros(1, 1, 32, 48)).shape == (1, 3)
