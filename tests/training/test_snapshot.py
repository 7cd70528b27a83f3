from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.training.snapshot import Snapshot

HISTORY = [{"epoch": 1, "loss": 0.5}]


def snapshot(path: Path | None, seed: int = 0, width: int = 2, **settings: Any) -> Snapshot:
    """A network and a momentum that has seen one step, both drawn from ``seed``."""
    torch.manual_seed(seed)
    module = nn.Linear(3, width)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1 + seed, momentum=0.9)
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return Snapshot(path, {"epochs": 2, "lr": 0.1} | settings, {"module": module, "optimizer": optimizer})


def state(of: Snapshot) -> list[Any]:
    module, optimizer = of.parts["module"], of.parts["optimizer"]
    momenta = [optimizer.state[weight]["momentum_buffer"].tolist() for weight in module.parameters()]
    return [module.weight.tolist(), module.bias.tolist(), momenta, optimizer.param_groups[0]["lr"]]


def test_what_was_saved_is_restored(tmp_path: Path) -> None:
    there, here = snapshot(tmp_path / "new" / "state.pt"), snapshot(tmp_path / "new" / "state.pt", seed=1)
    there.save(HISTORY)
    assert state(here) != state(there)
    assert here.restore() == HISTORY
    assert state(here) == state(there)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["state.pt"]


def test_nothing_was_saved(tmp_path: Path) -> None:
    snapshot(None).save(HISTORY)
    for path in (None, tmp_path / "state.pt"):
        here = snapshot(path)
        before = state(here)
        assert here.restore() == []
        assert state(here) == before


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"epochs": 3}, "setting epochs is 2, here it is 3"),
        ({"batch_size": 4}, "setting batch_size is None, here it is 4"),
        ({"width": 5}, r"tensor weight is \(2, 3\), here it is \(5, 3\)"),
    ],
)
def test_the_state_of_another_training_is_refused(tmp_path: Path, other: dict[str, int], told: str) -> None:
    snapshot(tmp_path / "state.pt").save(HISTORY)
    here = snapshot(tmp_path / "state.pt", **other)
    before = state(here)
    with pytest.raises(UserError, match=f"state of another training: its {told}"):
        here.restore()
    assert state(here) == before


def test_a_tensor_too_many_or_too_few_is_refused(tmp_path: Path) -> None:
    path, settings = tmp_path / "state.pt", {"epochs": 2}
    bare, whole = (Snapshot(path, settings, {"module": nn.Linear(3, 2, bias=bias)}) for bias in (False, True))
    bare.save(HISTORY)
    with pytest.raises(UserError, match=r"tensor bias is None, here it is \(2,\)"):
        whole.restore()
    whole.save(HISTORY)
    with pytest.raises(UserError, match=r"tensor bias is \(2,\), here it is None"):
        bare.restore()


class Payload:
    """Anything but tensors and plain values, which a file must not bring to life."""


@pytest.mark.parametrize("content", [b"", b"not a state", {"no": "state"}, [1.0], Payload()])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "state.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"state\.pt' is no saved training"):
        snapshot(path).restore()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    snapshot(path).save(HISTORY)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is no saved training"):
        snapshot(path).restore()
