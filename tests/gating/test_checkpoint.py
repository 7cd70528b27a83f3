"""What is deployed, against what was trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gated import MODELS, PIXELS, Made, gate, images, network
from safetensors.torch import load_file, save_file

import rlprune
from rlprune.errors import UserError
from rlprune.gating.checkpoint import gate_params, save_gated, shrink, stored_mask
from rlprune.gating.skipping import SkippingNetwork
from rlprune.plans.plan import make_plan
from rlprune.tracing.selection import Choice


def folder_of(made: Made, name: str, folder: Path, **more: Any) -> tuple[Path, SkippingNetwork]:
    about = {"model": name, "args": {"width": MODELS[name]}, "classes": 4, "image_size": PIXELS, **more}
    plan = make_plan(made.graph, stored_mask(made.gated, made.runtime), about)
    module = shrink(made.gated, made.runtime)
    plan.save(folder / "plan.json")
    save_gated(module, folder)
    return folder, module


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_removing_what_is_never_needed_changes_no_output(name: str, mix: float) -> None:
    made = gate(network(name), mix)
    with torch.no_grad():
        expected = made.gated(images(3))
    counts, mask = made.gated.counts(), stored_mask(made.gated, made.runtime)
    module = shrink(made.gated, made.runtime)
    with torch.no_grad():
        torch.testing.assert_close(module.gated(images(3)), expected, rtol=1e-4, atol=1e-5)
        alone = torch.cat([module(picture[None]) for picture in images(3)])
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(module.gated.counts(), counts[2:])
    stored = sum(parameter.numel() for parameter in module.gated.network.parameters())
    plan = make_plan(made.graph, mask)
    assert stored == made.cost(plan.counts())[1]
    assert mask.all() == (mix == 1)


def test_with_a_mix_of_one_nothing_is_removed() -> None:
    made = gate(network("vgg11"), 1.0)
    module = shrink(made.gated, made.runtime)
    assert sum(parameter.numel() for parameter in module.gated.network.parameters()) == made.cost.dense[1]


def test_gates_are_counted() -> None:
    made = gate(network("mcifarnet"), 1.0)
    layout = made.runtime.layout
    predictors = sum((seen + 1) * size + size for seen, size in zip(layout.inputs, layout.channels, strict=True))
    policy = sum((seen + size + 1) * 32 for seen, size in zip(layout.inputs, layout.channels, strict=True))
    assert gate_params(SkippingNetwork(made.gated)) == predictors + policy + 36 * 32 + 33


@pytest.mark.parametrize(
    ("mix", "kind"), [(0.0, {"predicts": False, "acts": False}), (0.4, {}), (1.0, {}), (0.4, {"recurrent": True})]
)
def test_a_folder_loads_as_it_was_saved(mix: float, kind: dict[str, bool], tmp_path: Path) -> None:
    folder, module = folder_of(gate(network("vgg11"), mix, **kind), "vgg11", tmp_path)
    loaded = rlprune.load(folder)
    assert isinstance(loaded, SkippingNetwork)
    assert not loaded.training
    for picture in images(3):
        torch.testing.assert_close(loaded(picture[None]), module(picture[None]), rtol=0, atol=0)
    assert loaded.runtime.budget == module.runtime.budget


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("inputs"),
        lambda about: about.update(inputs="many"),
        lambda about: about["channels"].pop(),
        lambda about: about.update(predicts=False),
        lambda about: about.update(recurrent=True),
        lambda about: about.update(points=7),
        lambda about: about["channels"].__setitem__(1, float("inf")),
        lambda about: about.update(mix=None),
        lambda about: about["layers"].pop(),
        lambda about: about["layers"].reverse(),
        lambda about: about["layers"].__setitem__(0, "elsewhere"),
        lambda about: about.update(layers=3),
    ],
)
def test_a_damaged_folder_is_refused(change: object, tmp_path: Path) -> None:
    folder, _ = folder_of(gate(network("vgg11"), 0.5), "vgg11", tmp_path)
    about = json.loads((folder / "gates.json").read_text())
    change(about)
    (folder / "gates.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"gates\.json"):
        rlprune.load(folder)


def test_only_some_of_the_gates_that_there_could_be(tmp_path: Path) -> None:
    made = gate(network("vgg11"), 0.4, layers=("features.0", "features.8"))
    with torch.no_grad():
        expected = made.gated(images(3))
    folder, _ = folder_of(made, "vgg11", tmp_path)
    loaded = rlprune.load(folder)
    assert [wire.layer for wire in loaded.gated.wires] == ["features.0", "features.8"]
    alone = torch.cat([loaded(picture[None]) for picture in images(3)])
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


def test_a_folder_of_the_first_version_has_all_gates(tmp_path: Path) -> None:
    folder, module = folder_of(gate(network("resnet20"), 0.4), "resnet20", tmp_path)
    about = json.loads((folder / "gates.json").read_text())
    assert about.pop("layers") == [wire.layer for wire in module.gated.wires]
    (folder / "gates.json").write_text(json.dumps(about))
    for picture in images(2):
        torch.testing.assert_close(rlprune.load(folder)(picture[None]), module(picture[None]), rtol=0, atol=0)


def test_layers_that_the_user_has_excluded_have_no_gate(tmp_path: Path) -> None:
    made = gate(network("vgg11"), 0.4, choice=Choice(exclude=("features.4",)))
    assert "features.4" not in [wire.layer for wire in made.gated.wires]
    folder, module = folder_of(made, "vgg11", tmp_path, exclude="features.4")
    loaded = rlprune.load(folder)
    for picture in images(2):
        torch.testing.assert_close(loaded(picture[None]), module(picture[None]), rtol=0, atol=0)
    assert loaded.gated.counts().shape == (1, len(made.graph.groups))


def test_a_single_channel_may_be_left(tmp_path: Path) -> None:
    """Before a depthwise convolution too, which is like any other then."""
    made = gate(network("mobilenetv2"), 0.0, predicts=False, acts=False)
    made.runtime.static.fill_(0.01)
    with torch.no_grad():
        expected = made.gated(images(3))
    assert (made.gated.counts() == 1).any()
    folder, _ = folder_of(made, "mobilenetv2", tmp_path)
    loaded = rlprune.load(folder)
    alone = torch.cat([loaded(picture[None]) for picture in images(3)])
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


def test_tensors_of_layers_that_are_not_there(tmp_path: Path) -> None:
    folder, _ = folder_of(gate(network("vgg11"), 0.5), "vgg11", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(iter(name for name in tensors if name.startswith("network.")))
    tensors[f"network.elsewhere.{name.removeprefix('network.')}"] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"gates\.json"):
        rlprune.load(folder)


@pytest.mark.parametrize("change", [{"points": 10**8}, {"inputs": 10**7}, {"channels": 10**7}])
def test_no_memory_is_taken_for_sizes_that_are_not_those_of_the_tensors(
    change: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = folder_of(gate(network("vgg11"), 0.5), "vgg11", tmp_path)
    about = json.loads((folder / "gates.json").read_text())
    for name, value in change.items():
        about[name] = [value, *about[name][1:]] if isinstance(about[name], list) else value
    (folder / "gates.json").write_text(json.dumps(about))
    for name in ("ones", "empty"):
        make = getattr(torch, name)

        def watched(*sizes: int, make: Callable[..., torch.Tensor] = make, **options: object) -> torch.Tensor:
            made = make(*sizes, **options)
            assert made.is_meta or made.nbytes < 1 << 24
            return made

        monkeypatch.setattr(torch, name, watched)
    with pytest.raises(UserError, match=r"gates\.json"):
        rlprune.load(folder)
