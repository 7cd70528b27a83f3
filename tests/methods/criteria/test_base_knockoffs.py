"""Means and covariances of images that are drawn."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from rlprune.errors import UserError
from rlprune.methods.criteria.base_knockoffs import of_folder, second_order


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(number: int) -> Tensor:
    """Images of 2 x 2 pixels whose numbers go together."""
    return torch.randn(number, 3, 1, 1, generator=drawn(1)) * torch.tensor([1.0, 3.0, 0.5]).view(3, 1, 1) + torch.randn(
        number, 3, 2, 2, generator=drawn(2)
    )


def test_means_and_covariances_are_those_of_the_images() -> None:
    images = pictures(40)
    found = second_order(images, drawn())(20_000).flatten(1).numpy()
    assert found.mean(0) == pytest.approx(images.flatten(1).mean(0).numpy(), abs=0.1)
    covariance = np.cov(images.flatten(1).numpy().T)
    assert np.cov(found.T) == pytest.approx(covariance, abs=0.05 * covariance.max())


def test_principal_components_have_the_second_moments_of_knockoffs() -> None:
    """Of (z, z̃) they are (Λ, Λ - s; Λ - s, Λ) with s = Λ: z̃ varies as z does, and is not correlated with it."""
    images = pictures(12)
    components = PCA().fit(images.flatten(1).numpy())
    alive = components.explained_variance_ > 1e-6
    draw = second_order(images, drawn())
    pairs = np.concatenate([draw(12).flatten(1).numpy() for _ in range(2000)])
    weights = components.transform(pairs)[:, alive]
    assert weights.std(0) ** 2 == pytest.approx(components.explained_variance_[alive], rel=0.05)
    originals = np.tile(components.transform(images.flatten(1).numpy())[:, alive], (2000, 1))
    together = np.corrcoef(np.hstack([originals, weights]).T)
    assert together == pytest.approx(np.eye(2 * alive.sum()), abs=0.05)


def test_the_same_seed_draws_the_same() -> None:
    images = pictures(5)
    one, same, other = (second_order(images, drawn(seed))(3) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (3, 3, 2, 2)


def test_images_of_a_folder(tmp_path: Path) -> None:
    """They are brought to the colours of the calibration images; another size is fitted."""
    images = pictures(6)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "z.txt", "png")
    found = of_folder(str(tmp_path), images, drawn())(200)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()
    for colour in range(3):
        mine = values[:, colour]
        expected = (mine - mine.mean()) / mine.std() * images[:, colour].std() + images[:, colour].mean()
        known = [one.flatten() for one in expected]
        assert all(
            any(torch.allclose(each.flatten().double(), one, atol=1e-4) for one in known) for each in found[:, colour]
        )
    assert len({tuple(each.flatten().tolist()) for each in found}) == 4


def test_folders_that_are_no_use(tmp_path: Path, write_images: Callable[..., None]) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"scop:knockoffs=.*: no images are there, expected a folder of"):
            of_folder(str(folder), pictures(2), drawn())
    write_images(tmp_path / "plain", 2, size=(9, 7))
    assert of_folder(str(tmp_path / "plain"), pictures(3), drawn())(5).shape == (5, 3, 2, 2)
    (tmp_path / "plain" / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image '.*bad.png' cannot be read"):
        of_folder(str(tmp_path / "plain"), pictures(3), drawn())
