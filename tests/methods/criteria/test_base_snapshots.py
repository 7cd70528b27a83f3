"""Trajectories whose eigenvalues and modes are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scoring import coupled, scores_of
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.methods.criteria.base_snapshots import decomposed

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a trajectory, step -> tensors, as snapshots."""

    def trajectory(at: Callable[[int], dict[str, Tensor]], steps: int = 8) -> Path:
        folder = tmp_path / "net.snapshots"
        folder.mkdir()
        for step in range(steps):
            save_file(at(step), folder / f"{step}.safetensors")
        return folder

    return trajectory


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other))


def test_eigenvalues_and_modes_of_linear_dynamics() -> None:
    rng = np.random.default_rng(0)
    fixed, slow, fast = rng.normal(size=(3, 50))
    snapshots = np.array([fixed + 0.9**t * slow + 0.6**t * fast for t in range(8)]).T
    values, combinations = decomposed(snapshots.T @ snapshots)
    order = np.argsort(-values.real)
    assert values[order] == pytest.approx([1, 0.9, 0.6], abs=1e-6)
    modes = snapshots[:, 1:] @ combinations[:, order]
    assert [cosine(modes[:, n], each) for n, each in enumerate((fixed, slow, fast))] == pytest.approx([1] * 3, abs=1e-8)


def test_a_turning_trajectory_has_a_pair_of_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    fixed, one, other = rng.normal(size=(3, 50))
    snapshots = np.array([fixed + 0.8**t * (np.cos(0.5 * t) * one + np.sin(0.5 * t) * other) for t in range(9)]).T
    values, _ = decomposed(snapshots.T @ snapshots)
    expected = [1, 0.8 * np.exp(0.5j), 0.8 * np.exp(-0.5j)]
    assert sorted(values, key=lambda value: value.imag) == pytest.approx(
        sorted(expected, key=lambda value: value.imag), abs=1e-6
    )


def test_what_all_snapshots_agree_in_is_of_rank_one() -> None:
    fixed = np.random.default_rng(0).normal(size=50)
    noise = 1e-9 * np.random.default_rng(1).normal(size=(50, 6))
    snapshots = fixed[:, None] + noise
    values, combinations = decomposed(snapshots.T @ snapshots)
    assert values == pytest.approx([1], abs=1e-6)
    assert cosine(snapshots[:, 1:] @ combinations[:, 0], fixed) == pytest.approx(1)


def split(net: nn.Module, seed: int) -> dict[str, Tensor]:
    """Something for every weight of a network."""
    drawn = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=drawn) for name, value in net.state_dict().items() if value.dim()}


def shares(mode: dict[str, Tensor]) -> np.ndarray:
    """What `stem` and `body` say of their group."""
    sums = [mode[f"{name}.weight"].abs().flatten(1).sum(1).numpy() for name in ("stem", "body")]
    return np.sum([each / each.mean() for each in sums], axis=0)


@pytest.mark.parametrize("block", [7, 2**18])
def test_kmp_scores_by_the_fixed_point_and_kgp_by_the_slowest_change(
    write: Write, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlprune.methods.criteria.base_snapshots.BLOCK", block)
    net = coupled()
    fixed, slow, fast = (split(net, seed) for seed in range(3))
    folder = write(lambda t: {name: fixed[name] + 0.9**t * slow[name] + 0.6**t * fast[name] for name in fixed})
    assert scores_of(f"kmp:snapshots={folder}", net)["stem"] == pytest.approx(shares(fixed), rel=1e-3)
    assert scores_of(f"kgp:snapshots={folder}", net)["stem"] == pytest.approx(shares(slow), rel=1e-3)


def test_kgp_does_not_take_the_conjugate_of_kmps_mode(write: Write) -> None:
    net = coupled()
    one, other, slow = (split(net, seed) for seed in range(3))

    def at(t: int) -> dict[str, Tensor]:
        cos, sin = 0.99**t * np.cos(0.05 * t), 0.99**t * np.sin(0.05 * t)
        return {name: (cos * one[name] + sin * other[name] + 0.7**t * slow[name]).float() for name in one}

    folder = write(at, steps=20)
    assert scores_of(f"kgp:snapshots={folder}", net)["stem"] == pytest.approx(shares(slow), rel=1e-2)
    turning = {name: (one[name].square() + other[name].square()).sqrt() for name in one}
    assert scores_of(f"kmp:snapshots={folder}", net)["stem"] == pytest.approx(shares(turning), rel=1e-2)


def test_of_a_training_that_has_converged_kmp_is_l1(write: Write) -> None:
    net = coupled()
    change = split(net, 0)
    folder = write(lambda t: {name: net.state_dict()[name] + 0.1 * 0.2**t * change[name] for name in change}, steps=9)
    scores, others = scores_of(f"kmp:snapshots={folder}", net), scores_of("l1", net)
    for group in others:
        assert (np.argsort(scores[group]) == np.argsort(others[group])).all()
        assert scores[group] == pytest.approx(others[group], rel=1e-3)


def test_files_are_in_the_order_of_their_numbers(write: Write) -> None:
    """Of 12 files, 10 and 11 would stand before 2 by their letters."""
    net = coupled()
    fixed, slow = split(net, 0), split(net, 1)
    folder = write(lambda t: {name: fixed[name] + 0.8**t * slow[name] for name in fixed}, steps=12)
    assert scores_of(f"kmp:snapshots={folder}", net)["stem"] == pytest.approx(shares(fixed), rel=1e-3)


@pytest.mark.parametrize("name", ["kmp", "kgp"])
def test_without_snapshots_it_says_how_to_get_them(name: str, write: Write) -> None:
    fix = f"rlprune train --snapshots 20 writes them, then --criterion {name}:snapshots=FOLDER"
    with pytest.raises(UserError, match=f"^criterion {name} needs snapshots of a training: {fix}$"):
        scores_of(name, coupled())
    folder = write(lambda _: split(coupled(), 0), steps=2)
    with pytest.raises(UserError, match=f"criterion {name}: .*net.snapshots holds 2 safetensors files, at least 3 are"):
        scores_of(f"{name}:snapshots={folder}", coupled())
    with pytest.raises(UserError, match=f"criterion {name}: elsewhere holds 0 safetensors files"):
        scores_of(f"{name}:snapshots=elsewhere", coupled())


def test_snapshots_that_are_no_use(write: Write) -> None:
    net = coupled()
    good = split(net, 0)
    folder = write(lambda _: good, steps=4)
    name = f"kgp:snapshots={folder}"
    with pytest.raises(UserError, match=r"kgp: nothing dies out over the snapshots in .*: take snapshots of"):
        scores_of(name, net)
    last = folder / "3.safetensors"
    for change, said in (
        (
            {"body.weight": torch.zeros(4, 5, 1, 1)},
            r"another network, it has \(4, 5, 1, 1\) for body.weight, here",
        ),
        ({"body.weight": torch.full((4, 4, 1, 1), torch.nan)}, "body.weight in .*3.safetensors holds NaN or infinite"),
    ):
        save_file(good | change, last)
        with pytest.raises(UserError, match=said):
            scores_of(name, net)
    save_file({key: value for key, value in good.items() if key != "last.weight"}, last)
    with pytest.raises(UserError, match=r"it has nothing for last\.weight"):
        scores_of(name, net)
    last.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"criterion kgp: cannot read .*3\.safetensors"):
        scores_of(name, net)
