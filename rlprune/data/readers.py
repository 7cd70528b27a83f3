"""Processes that read image files."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from rlprune.data.decoding import read_image
from rlprune.data.paths import PathTable
from rlprune.errors import UserError
from rlprune.tasks.base import AS_THEY_ARE, CUTOUT, FLIP
from rlprune.tasks.classification import cut_out
from rlprune.utils.shapes import Shape

MANY = 2000
"""Files, below which reading them takes less time than to start processes for it and to keep these in memory."""
MOST = 8
"""Processes by default, at most."""
Item = tuple[int, str, int]
"""Which image, how it is changed at random, and from which seed."""


def usual_workers(files: int) -> int:
    """How many processes read so many files by default: one for every second core, the others compute."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST, cores // 2) if files >= MANY else 0


@dataclass
class Files:
    """Image files, each read, resized and cropped when it is asked for."""

    paths: PathTable
    shape: Shape

    def __getitem__(self, item: Item) -> Tensor | UserError:
        index, augment, seed = item
        try:
            image = read_image(self.paths[index], self.shape[0])
        except UserError as error:
            return error  # raised by a worker process it would arrive wrapped in that process's traceback
        if augment == AS_THEY_ARE:
            return self._centre(image)
        with torch.random.fork_rng(devices=[]):  # the transforms know only the global generator
            torch.default_generator.manual_seed(seed)
            return self._changed(image, augment)

    def _centre(self, image: Image.Image) -> Tensor:
        from torchvision import transforms as tv

        sides = self.shape[1:]
        return tv.Compose([tv.Resize(_covering(image, *sides)), tv.CenterCrop(sides), tv.PILToTensor()])(image)

    def _changed(self, image: Image.Image, augment: str) -> Tensor:
        from torchvision import transforms as tv

        if augment == FLIP:
            return tv.RandomHorizontalFlip()(self._centre(image))
        sides = self.shape[1:]
        # As for square images, a side is stretched by at most a third more than the other.
        aspect = sides[1] / sides[0]
        crop = tv.RandomResizedCrop(sides, ratio=(3 / 4 * aspect, 4 / 3 * aspect))
        pixels = tv.Compose([crop, tv.RandomHorizontalFlip(), tv.PILToTensor()])(image)
        return cut_out(pixels[None], torch.default_generator)[0] if augment == CUTOUT else pixels


class Readers:
    """Reads image files here or, ahead of time, in processes that stay from one pass to the next.

    Args:
        files: what is read.
        workers: processes; 0 reads in this one.
    """

    def __init__(self, files: Files, workers: int) -> None:
        self.files, self.workers = files, workers
        self._kept: dict[bool, DataLoader[Any]] = {}
        self._busy = False
        self._wanted = _Wanted()

    def read(self, batches: Callable[[], Iterable[list[Item]]], *, alone: bool, pinned: bool) -> Iterator[Tensor]:
        """Batches of images, uint8 (B, C, H, W).

        Args:
            batches: gives the items of each of them.
            alone: there is a single one, which a process could not begin ahead of time.
            pinned: in memory from which a GPU copies while it computes.

        Raises:
            UserError: a file is no image, or a process died.
        """
        if not self.workers or alone:
            found: Iterator[Tensor | UserError] = (_stacked([self.files[item] for item in part]) for part in batches())
        else:
            found = self._ahead(batches, pinned)
        for images in found:
            if isinstance(images, UserError):
                raise images
            yield images.pin_memory() if pinned and not images.is_pinned() else images

    def _ahead(self, batches: Callable[[], Iterable[list[Item]]], pinned: bool) -> Iterator[Tensor | UserError]:
        """What the processes send; a second pass while the first goes on gets processes of its own."""
        if self._busy:
            wanted = _Wanted()
            loader = self._start(wanted, pinned, stay=False)
        else:
            wanted = self._wanted
            loader = self._kept[pinned] if pinned in self._kept else self._start(wanted, pinned, stay=True)
        wanted.batches = batches
        mine, self._busy = not self._busy, True
        try:
            with _readers_that_may_die(), _no_main_module():
                parts = iter(loader)
            while True:
                with _readers_that_may_die():
                    images = next(parts, None)
                if images is None:
                    break
                yield images
            if mine:
                self._kept[pinned] = loader
        except BaseException:
            # Whatever ends a pass early: processes that died, or that are ahead with images that nobody wants.
            self._kept.pop(pinned, None)
            raise
        finally:
            self._busy = self._busy and not mine

    def _start(self, wanted: "_Wanted", pinned: bool, stay: bool) -> DataLoader[Any]:
        return DataLoader(
            self.files,  # type: ignore[arg-type]
            batch_sampler=wanted,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=_stacked,
            pin_memory=pinned,
            multiprocessing_context=_context(),
            worker_init_fn=_end_with_the_parent,
            persistent_workers=stay,
            generator=torch.Generator(),  # without one of its own the loader would draw from the global generator
        )


class _Wanted:
    """What a pass wants: said anew each time, while a loader and its processes stay."""

    def __init__(self) -> None:
        self.batches: Callable[[], Iterable[list[Item]]] = list

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches())


def _stacked(images: list[Tensor | UserError]) -> Tensor | UserError:
    error = next((image for image in images if isinstance(image, UserError)), None)
    return error or torch.stack(images)  # type: ignore[arg-type]


def _covering(image: Image.Image, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image scaled to hold what is wanted, and a margin, without being stretched."""
    # 256 / 224: the margin of ImageNet evaluation since Krizhevsky et al. 2012
    height, width = height * 256 // 224, width * 256 // 224
    if height * image.width >= width * image.height:
        return height, height * image.width // image.height
    return width * image.height // image.width, width


@contextmanager
def _readers_that_may_die() -> Iterator[None]:
    """A process that reads images is the first that a machine without memory kills; people are told so."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        # Whichever comes first: that it is gone, or that the images it has sent cannot be fetched from it.
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            "a process that reads images was killed, maybe since there was no memory left: the same command continues, "
            f"after the last epoch that ended; fewer --workers need less ({error})"
        ) from None


def _context() -> Any:
    """Worker processes without a fork of this one: its threads would not survive that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torchvision.transforms"])
    return context


def _end_with_the_parent(worker: int) -> None:
    """Whoever is killed cannot end its processes, and the server that they are forked from waits for them."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Within, new processes do not run the script again that started this one, which a script without a guard would not
    survive: they read files, and need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
