"""Trajectories whose eigenvalues and modes are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scoring import coupled, scores_of
from trajectories import shares, weights, write

from rlprune.errors import UserError
from rlprune.methods.criteria.base_snapshots import decomposed


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


def test_files_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Of 12 files, 10 and 11 would stand before 2 by their letters."""
    net = coupled()
    fixed, slow = weights(0), weights(1)
    folder = write(tmp_path, lambda t: {name: fixed[name] + 0.8**t * slow[name] for name in fixed}, steps=12)
    assert scores_of(f"kmp:snapshots={folder}", net)["stem"] == pytest.approx(shares(fixed), rel=1e-3)


@pytest.mark.parametrize("name", ["kmp", "kgp"])
def test_without_snapshots_it_says_how_to_get_them(name: str, tmp_path: Path) -> None:
    fix = f"rlprune train --snapshots 20 writes them, then --criterion {name}:snapshots=FOLDER"
    with pytest.raises(UserError, match=f"^criterion {name} needs snapshots of a training: {fix}$"):
        scores_of(name, coupled())
    folder = write(tmp_path, lambda _: weights(0), steps=2)
    with pytest.raises(UserError, match=f"criterion {name}: .*net.snapshots holds 2 safetensors files, at least 3 are"):
        scores_of(f"{name}:snapshots={folder}", coupled())
    with pytest.raises(UserError, match=f"criterion {name}: elsewhere holds 0 safetensors files"):
        scores_of(f"{name}:snapshots=elsewhere", coupled())


def test_snapshots_that_are_no_use(tmp_path: Path) -> None:
    net = coupled()
    good = weights(0)
    folder = write(tmp_path, lambda _: good, steps=4)
    name = f"kgp:snapshots={folder}"
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
