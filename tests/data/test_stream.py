"""Images read from files: what is read, and the processes that read it."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photos import by_hand, seeded, together, write_photos
from PIL import Image

from rlprune.data.opening import open_images
from rlprune.data.stream import StreamImages
from rlprune.errors import UserError


@pytest.fixture
def photos(tmp_path: Path) -> StreamImages:
    return write_photos(tmp_path)


def test_file_batches_are_the_resized_centre(photos: StreamImages) -> None:
    """Resize(96 * 256 // 224 = 109) and CenterCrop(96), redone with Pillow alone."""
    for path, x in zip(photos.paths(), together(photos)[0], strict=True):
        with Image.open(path) as image:
            scale = 109 / min(image.size)
            width, height = (int(side * scale) for side in image.size)
            scaled = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - 96) / 2), round((height - 96) / 2)
        centre = np.asarray(scaled.crop((left, top, left + 96, top + 96)))
        torch.testing.assert_close(x.contiguous(), by_hand(torch.from_numpy(centre.copy()).permute(2, 0, 1)))


def test_subset_and_take_of_files_agree_with_batches(photos: StreamImages) -> None:
    indices = torch.tensor([5, 0, 5, 2])
    x, y = together(photos)
    for got_x, got_y in (photos.take(indices), together(photos.subset(indices))):
        assert torch.equal(got_x, x[indices])
        assert torch.equal(got_y, y[indices])


def test_worker_processes_give_the_same_batches(photos: StreamImages) -> None:
    """They start afresh, so they cannot inherit anything random either."""
    expected = together(photos, augment="standard", generator=seeded(4))
    photos.readers.workers = 1
    got = [together(photos, augment="standard", generator=seeded(4)) for _ in range(2)]
    for images, labels in got:
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])


def test_a_process_stays_and_serves_all_subsets(photos: StreamImages) -> None:
    """Also after a pass that was left early, and beside one that goes on."""
    expected, photos.readers.workers = together(photos)[0], 1
    part = photos.subset(torch.tensor([4, 1, 5, 2, 0]))
    before, seen = set(multiprocessing.active_children()), []
    for images in (photos, part, photos):
        together(images)
        seen.append(set(multiprocessing.active_children()) - before)
    assert len(seen[0]) == 1
    assert seen == [seen[0]] * 3
    first, _ = next(part.batches(1))
    assert torch.equal(first[0], expected[4])
    between = zip(part.batches(1), photos.batches(1), strict=False)
    for number, ((image, _), (other, _)) in enumerate(between):
        assert torch.equal(image[0], expected[[4, 1, 5, 2, 0][number]])
        assert torch.equal(other[0], expected[number])
    assert torch.equal(together(photos)[0], expected)


def test_a_batch_alone_is_read_here(photos: StreamImages) -> None:
    expected, photos.readers.workers = together(photos)[0], 1
    before = multiprocessing.active_children()
    assert torch.equal(photos.take(torch.tensor([3, 2]))[0], expected[[3, 2]])
    assert multiprocessing.active_children() == before


def test_a_script_without_a_guard_can_have_processes(tmp_path: Path) -> None:
    """Which would run it again, and start processes of their own."""
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "script.py").write_text(
        "import torch\n"
        "from rlprune.data.stream import StreamImages\n"
        f"paths = [f'{tmp_path}/{{number}}.png' for number in range(3)]\n"
        "images = StreamImages.of(paths, torch.arange(3), (3, 70, 70), workers=1)\n"
        "print([int(255 * batch[0, 0, 0, 0] + 0.5) for batch, _ in images.batches(1)])\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 2]\n", "")


def test_processes_end_with_whoever_started_them(tmp_path: Path) -> None:
    """They have its standard output, which ends when the last of them does."""
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "script.py").write_text(
        "import os, signal, torch\n"
        "from rlprune.data.stream import StreamImages\n"
        f"paths = [f'{tmp_path}/{{number}}.png' for number in range(3)]\n"
        "images = StreamImages.of(paths, torch.arange(3), (3, 70, 70), workers=1)\n"
        "batches = images.batches(1)\n"
        "next(batches)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], env=environment, stdout=subprocess.PIPE, timeout=120
    )
    assert done.returncode == -signal.SIGKILL


def test_images_are_mirrored_alone_or_lose_a_part(photos: StreamImages) -> None:
    """A mirrored image is the centre from right to left; of 96 x 96 pixels up to 48 x 48 are black."""
    photos.mean, photos.std = (0.0,) * 3, (1.0,) * 3
    plain, _ = together(photos)
    mirrored, _ = together(photos, augment="flip", generator=seeded(3))
    order = torch.randperm(7, generator=seeded(3))
    flipped = [torch.equal(image, plain[row].flip(2)) for image, row in zip(mirrored, order, strict=True)]
    kept = [torch.equal(image, plain[row]) for image, row in zip(mirrored, order, strict=True)]
    assert [*map(sum, zip(flipped, kept, strict=True))] == [1] * 7
    assert 0 < sum(flipped) < 7
    whole, _ = together(photos, augment="standard", generator=seeded(3))
    cut, _ = together(photos, augment="cutout", generator=seeded(3))
    for image, other in zip(cut, whole, strict=True):
        lost = (image != other).any(0)
        assert 24 * 24 * 0.9 < lost.sum() <= 48 * 48
        assert (image[:, lost] == 0).all()
        assert (image == other)[:, ~lost].all()


def test_a_broken_file_met_while_streaming_is_named(photos: StreamImages) -> None:
    with open(photos.paths()[3], "r+b") as file:
        file.truncate(200)
    with pytest.raises(UserError, match=r"3\.png"):
        list(photos.batches(4))


def test_errors_survive_the_way_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(UserError("no image")))) == "no image"


def test_a_killed_reader_is_told(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    images = StreamImages.of(paths, torch.zeros(12, dtype=torch.int64), (3, 70, 70), workers=1)
    batches, before = images.batches(1), multiprocessing.active_children()
    next(batches)
    (reader,) = set(multiprocessing.active_children()) - set(before)
    os.kill(reader.pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a process that reads images was killed.* the same command continues"):
        list(batches)
    assert len(list(images.batches(1))) == 12


@pytest.mark.parametrize("shape", [(1, 40, 80), (4, 80, 40), (3, 66, 30)])
def test_files_that_are_not_square_are_the_resized_centre(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Scaled without distortion until both sides are an eighth (256 / 224) larger, redone with Pillow alone."""
    channels, height, width = shape
    mode, rng, paths = {1: "L", 3: "RGB", 4: "RGBA"}[channels], np.random.default_rng(0), []
    for number, size in enumerate([(90, 60, channels), (60, 190, channels), (128, 128, channels)]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8).squeeze()).save(paths[-1])
    images: Any = open_images(paths, torch.zeros(3, dtype=torch.int64), shape, augmentable=True, workers=0)
    assert isinstance(images, StreamImages)
    images.mean, images.std = (0.0,) * channels, (1.0,) * channels
    for path, x in zip(paths, images.take(torch.arange(3))[0], strict=True):
        with Image.open(path) as image:
            assert image.mode == mode
            scale = max(height * 256 // 224 / image.height, width * 256 // 224 / image.width)
            sides = [int(side * scale + 1e-9) for side in image.size]
            scaled = image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
        left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
        centre = np.asarray(scaled.crop((left, top, left + width, top + height))).reshape(height, width, channels)
        np.testing.assert_array_equal((x * 255).round().permute(1, 2, 0).numpy(), centre)
    augmented, _ = next(images.batches(3, augment="standard", generator=seeded()))
    assert augmented.shape == (3, *shape)
