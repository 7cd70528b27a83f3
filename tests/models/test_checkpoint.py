"""Weights in and out: every common form loads, everything else is refused before anything is copied."""

import pickle
import warnings
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rlprune.errors import UserError
from rlprune.models.checkpoint import load_checkpoint, save_weights, weights_hash


class Extra:
    """Something a training script might pickle along."""


def net(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in net(1).state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        net(1).state_dict(),
        *({wrapper: net(1).state_dict(), "epoch": 3} for wrapper in ("state_dict", "model", "model_state_dict", "net")),
        {"model": {"state_dict": net(1).state_dict()}},
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        {"state_dict": prefixed("_orig_mod.module."), "optimizer": {"state": {0: torch.zeros(1)}}},
        {key: value for key, value in net(1).state_dict().items() if not key.endswith("num_batches_tracked")},
        {key: value.double() for key, value in net(1).state_dict().items()},
        *({wrapper: net(1).state_dict()} for wrapper in ("network", "weights", "params", "state_dict_ema", "mine")),
        {"params_ema": net(2).state_dict(), "params": net(1).state_dict()},
        {
            "net": net(1).state_dict(),
            "acc": np.float64(93.2),
            "best": np.array([1.5]),
            "args": Extra(),
            "at": Path("x"),
        },
        {"state_dict": {**prefixed("model."), "criterion.weight": torch.ones(5)}, "hyper_parameters": {"lr": 0.1}},
        {"epoch": 3, "nested": {"state_dict": prefixed("backbone.")}},
        AveragedModel(net(1)).state_dict(),
        nn.DataParallel(net(1)).state_dict(),
        {**net(1).state_dict(), "_extra_state": "anything"},
    ],
)
def test_common_forms_load(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    model = net()
    assert not same(model, net(1))
    load_checkpoint(model, tmp_path / "weights.pt")
    assert same(model, net(1))


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.bin"])
def test_safetensors_load_whatever_they_are_called(tmp_path: Path, file: str) -> None:
    save_file(net(1).state_dict(), tmp_path / file)
    model = net()
    load_checkpoint(model, tmp_path / file)
    assert same(model, net(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_the_networks_own(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save(net(1).to(dtype).state_dict(), tmp_path / "half.pt")
    model = net()
    load_checkpoint(model, tmp_path / "half.pt")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert same(model, net(1).to(dtype).float())


def test_a_network_with_a_module_named_module_keeps_its_names(tmp_path: Path) -> None:
    wrapped, other = (nn.Sequential(OrderedDict(module=net(seed))) for seed in (0, 1))
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    load_checkpoint(wrapped, tmp_path / "weights.pt")
    assert same(wrapped, other)


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state = {**net(1).state_dict(), **{name.replace("_", ".", 1): value for name, value in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            net(1, classes=7).state_dict(),
            r"3.weight: checkpoint has \(7, 16\), tiny expects \(3, 16\)\n  3.bias: .*\(7,\)",
        ),
        (changed(**{"3_bias": None}), r"3.bias: checkpoint has nothing, tiny expects \(3,\)"),
        (changed(extra_weight=torch.ones(2)), r"extra.weight: checkpoint has \(2,\), tiny expects nothing"),
        (changed(**{"3_bias": torch.ones(3, dtype=torch.int8)}), r"checkpoint has \(3,\) torch.int8"),
        (changed(**{"3_bias": torch.tensor([0.0, float("nan"), 0.0])}), "'3.bias' holds NaN or infinite"),
        (changed(**{"1_running_var": torch.full((4,), float("inf"))}), "'1.running_var' holds NaN or infinite"),
        (changed(**{"3_bias": torch.full((3,), 1e300, dtype=torch.float64)}), "'3.bias' holds NaN or infinite"),
        ({"other.weight": torch.ones(1)}, r"(?s)does not fit tiny:(\n  [^\n]*){3}\n  and \d+ more$"),
        ({"state_dict": {}}, "holds no weights"),
        ({"epoch": 3}, "holds no state dict.*torch.save"),
        ({0: torch.ones(1)}, "holds no state dict"),
        (torch.ones(3), "holds no state dict"),
        (net(1), "only weights are loaded.*torch.save"),
        ({"state_dict": net(1), "args": Extra()}, "holds no state dict.*torch.save"),
        (
            {"student": net(1).state_dict(), "teacher": net(2).state_dict()},
            "holds several networks that fit, at student, teacher: save the weights of the one",
        ),
        ({**prefixed("a."), **prefixed("b.")}, "holds several networks that fit, at a, b: save"),
        (
            {"state_dict": {**prefixed("a."), "a.more": torch.ones(2)}},
            r"more: checkpoint has \(2,\), tiny expects nothing",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_copied(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    model = net()
    with pytest.raises(UserError, match=message):
        load_checkpoint(model, tmp_path / "weights.pt", name="tiny")
    assert same(model, net())


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"hello, world", b"\x00" * 64, b"\x80\x02", pickle.dumps(Extra()), pickle.dumps({"a": 1})],
)
@pytest.mark.parametrize("file", ["weights.pt", "weights.safetensors"])
def test_other_files_are_refused(tmp_path: Path, content: bytes, file: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=r"the checkpoint .* (is empty|is truncated|only weights are loaded)"):
        load_checkpoint(net(), tmp_path / file)


@settings(max_examples=30, deadline=None)
@given(part=st.floats(0, 0.99), safe=st.booleans())
def test_truncated_files_are_refused(tmp_path_factory: pytest.TempPathFactory, part: float, safe: bool) -> None:
    path = tmp_path_factory.mktemp("truncated") / "weights"
    if safe:
        save_weights(net(1), path)
    else:
        torch.save(net(1).state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match="the checkpoint"):
        load_checkpoint(net(), path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(net(), tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match="is a directory"):
        load_checkpoint(net(), tmp_path)


def test_weights_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"what was there before")
    save_weights(net(1), path)
    loaded = load_file(path)
    assert all(torch.equal(loaded[key], value) for key, value in net(1).state_dict().items())
    assert weights_hash(loaded) == weights_hash(net(1).state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
    model = net()
    load_checkpoint(model, path)
    assert same(model, net(1))


def test_shared_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    save_weights({"whole": base, "tied": base, "turned": base.T, "part": base[:, 1]}, tmp_path / "weights")
    loaded = load_file(tmp_path / "weights")
    assert torch.equal(loaded["tied"], base)
    assert torch.equal(loaded["turned"], base.T)
    assert torch.equal(loaded["part"], torch.tensor([1.0, 5.0, 9.0]))


def test_others_may_read_what_is_saved(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    save_weights(net(), tmp_path / "weights")
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    save_weights(net(1), path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(UserError, match=r"cannot write .*weights: disk full"):
        save_weights(net(2), path)
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]
    assert weights_hash(load_file(path)) == weights_hash(net(1).state_dict())


def test_hash_is_stable() -> None:
    state = {"b": torch.tensor([1.0, -2.0]), "a": torch.tensor(3)}
    # Computed apart, with hashlib and struct, from the names, dtypes, shapes and little-endian values.
    assert weights_hash(state) == weights_hash(dict(reversed(state.items()))) == "0a5993ebb1a32791"


def test_hash_sees_values_names_shapes_and_dtypes_but_not_strides() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    nudged = base.clone()
    nudged[1, 2] = torch.nextafter(nudged[1, 2], torch.tensor(9.0))
    states = [{"a": base}, {"b": base}, {"a": base.flatten()}, {"a": base.double()}, {"a": base.half()}, {"a": nudged}]
    states += [{"a": base, "b": base}, {"a": base.bfloat16()}, {"a": base.bool()}, {}]
    assert len({weights_hash(state) for state in states}) == len(states)
    assert weights_hash({"a": base.T.contiguous().T}) == weights_hash({"a": base})


def test_nothing_foreign_in_a_file_is_made(tmp_path: Path) -> None:
    """Unpickling would write a file; the weights beside it are read and it is not."""
    torch.save({"net": net(1).state_dict(), "hook": Writes(tmp_path / "written")}, tmp_path / "weights.pt")
    model = net()
    load_checkpoint(model, tmp_path / "weights.pt")
    assert same(model, net(1))
    assert not (tmp_path / "written").exists()


def touch(path: Path) -> None:
    path.touch()


class Writes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return touch, (self.path,)


def test_a_scripted_program_is_no_checkpoint(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        # It is going to be dropped, people have such files all the same.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net(), torch.zeros(1, 3, 4, 4)), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"net.pt is a TorchScript program and no checkpoint: save .*torch\.jit\.load"):
        load_checkpoint(net(), tmp_path / "net.pt")


class Keeping(nn.Linear):
    """Keeps a number beside its tensors."""

    kept: object = 1.5

    def get_extra_state(self) -> object:
        return {"kept": self.kept}

    def set_extra_state(self, state: dict[str, object]) -> None:
        self.kept = state["kept"]


def test_what_a_module_keeps_beside_its_tensors(tmp_path: Path) -> None:
    """Only tensors are hashed and stored; a file of torch brings the rest along."""
    one, other = Keeping(2, 3), Keeping(2, 3)
    tensors = {"weight": one.weight, "bias": one.bias}
    assert weights_hash(one.state_dict()) == weights_hash(tensors)
    save_weights(one, tmp_path / "weights.safetensors")
    assert set(load_file(tmp_path / "weights.safetensors")) == set(tensors)
    load_checkpoint(other, tmp_path / "weights.safetensors")
    assert torch.equal(other.weight, one.weight)
    one.kept = 7.0
    torch.save(one.state_dict(), tmp_path / "weights.pt")
    load_checkpoint(other, tmp_path / "weights.pt")
    assert other.kept == 7.0


@pytest.mark.parametrize(("classes", "taken"), [(3, True), (7, False)])
def test_a_head_of_another_size_keeps_its_weights(tmp_path: Path, classes: int, taken: bool) -> None:
    save_weights(net(1, classes), tmp_path / "weights")
    model = net()
    with pytest.raises(UserError, match="--new-head") if not taken else nullcontext():
        load_checkpoint(net(), tmp_path / "weights")
    assert load_checkpoint(model, tmp_path / "weights", head="3") is taken
    assert torch.equal(model[0].weight, net(1)[0].weight)
    assert torch.equal(model[3].weight, net(1 if taken else 0)[3].weight)


def test_the_weights_of_a_pruned_folder_are_no_dense_checkpoint(tmp_path: Path) -> None:
    save_weights(nn.Sequential(nn.Conv2d(3, 2, 3)), tmp_path / "model.safetensors")
    (tmp_path / "plan.json").write_text("{}")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(UserError, match="it holds a pruned network, and what is asked for is the dense one's"):
            load_checkpoint(net(), path)
