"""Labelled images that come in normalised batches: small ones rest in memory, large ones are read when needed."""

import multiprocessing
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from rlprune.errors import UserError
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.utils.shapes import MODES, RGB, Shape

SMALL = 64  # pixels a side up to which a whole set is kept in memory: 12 KiB an image
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow knows more of them, and starts another program for PostScript, whatever the file is called."""
Colour = tuple[float, ...]
"""A number for each channel of an image."""


@dataclass(eq=False)
class ImageSet(ABC):
    """Images of one shape and their labels; ``mean`` and ``std`` (0..1 scale, one a channel or one) normalise them."""

    labels: Tensor
    mean: Colour = field(default=(0.0,), kw_only=True)
    std: Colour = field(default=(1.0,), kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at ``indices`` (int64, CPU), in that order and without a copy of their pixels."""

    @abstractmethod
    def _pixels(
        self, rows: Sequence[Tensor], augment: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        """For each tensor of indices in ``rows`` its images, uint8 of shape (B, C, H, W), on any device."""

    def batches(
        self,
        batch_size: int,
        *,
        augment: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in batches; the last one may be smaller.

        Args:
            batch_size: images a batch.
            augment: whether to change the images at random, where that is usual for training on such images.
            generator: the source of all randomness; with it the images are shuffled, without it they keep their order.
            device: where the batches go.

        Returns:
            Pairs of images, float32 (B, C, H, W) in channels-last memory format, and labels, int64 (B,).
        """
        if augment and generator is None:
            raise ValueError("augmentation draws from the generator: give one")
        device, count = torch.device(device), len(self)
        order = torch.arange(count)
        if generator is not None:
            order = torch.randperm(count, generator=generator, device=generator.device).cpu()
        rows = order.split(batch_size)
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self.mean, self.std))
        scale, shift = 1 / (255 * std), mean / std
        for chosen, pixels in zip(rows, self._pixels(rows, generator if augment else None, device), strict=True):
            images = pixels.to(device).to(torch.float32, memory_format=torch.channels_last)
            yield images.mul_(scale).sub_(shift), self.labels[chosen].to(device)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels at ``indices`` (int64, at least one) as one batch on the CPU, not augmented."""
        return next(self.subset(indices).batches(len(indices)))


@dataclass(eq=False)
class MemoryImages(ImageSet):
    """Images kept in memory as one uint8 tensor that all subsets share; a device that asks for some gets all, once.

    Args:
        labels: int64 of shape (N,).
        pixels: uint8 of shape (M, C, H, W).
        augmentable: whether to move and mirror images for training; centred scans of digits only get worse.
        rows: which of the M images these are, int64 of shape (N,); all of them by default.
    """

    pixels: Tensor
    augmentable: bool
    rows: Tensor | None = None
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    def subset(self, indices: Tensor) -> "MemoryImages":
        """The images at ``indices``; see `ImageSet.subset`."""
        rows = indices if self.rows is None else self.rows[indices]
        return replace(self, labels=self.labels[indices], rows=rows)

    def _resident(self, device: torch.device) -> Tensor:
        if device.type == "cpu":
            return self.pixels
        if device not in self._copies:
            self._copies[device] = self.pixels.to(device)
        return self._copies[device]

    def _pixels(
        self, rows: Sequence[Tensor], augment: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        source = self._resident(device)
        for chosen in rows:
            images = source[(chosen if self.rows is None else self.rows[chosen]).to(device)]
            yield CLASSIFICATION.augment(images, augment) if augment is not None and self.augmentable else images


@dataclass(eq=False)
class StreamImages(ImageSet):
    """Image files read, resized and cropped each time they are asked for.

    Args:
        labels: int64 of shape (N,).
        paths: the N files.
        shape: of the images given out.
        workers: processes that read ahead; 0 reads in this one.
    """

    paths: Sequence[str]
    shape: Shape
    workers: int = 0

    def subset(self, indices: Tensor) -> "StreamImages":
        """The images at ``indices``; see `ImageSet.subset`."""
        return replace(self, labels=self.labels[indices], paths=[self.paths[i] for i in indices.tolist()])

    def _pixels(
        self, rows: Sequence[Tensor], augment: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        seeds = None
        if augment is not None:
            seeds = torch.randint(2**62, (len(self),), generator=augment, device=augment.device).tolist()
        loader: DataLoader[Any] = DataLoader(
            _Files(self.paths, self.shape, seeds),  # type: ignore[arg-type]
            batch_sampler=[chosen.tolist() for chosen in rows],
            num_workers=self.workers,
            collate_fn=_stacked,
            pin_memory=device.type == "cuda",
            multiprocessing_context=_context() if self.workers else None,
            generator=torch.Generator(),  # without one of its own the loader would draw from the global generator
        )
        with _readers_that_may_die():
            batches = iter(loader)
        while True:
            with _readers_that_may_die():
                images = next(batches, None)
            if images is None:
                return
            if isinstance(images, UserError):
                raise images
            yield images


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


@dataclass
class _Files:
    paths: Sequence[str]
    shape: Shape
    seeds: Sequence[int] | None

    def __getitem__(self, index: int) -> Tensor | UserError:
        from torchvision import transforms as tv

        channels, *sides = self.shape
        try:
            image = read_image(self.paths[index], channels)
        except UserError as error:
            return error  # raised by a worker process it would arrive wrapped in that process's traceback
        if self.seeds is None:
            steps = [tv.Resize(_covering(image, *sides)), tv.CenterCrop(sides), tv.PILToTensor()]
            return tv.Compose(steps)(image)
        with torch.random.fork_rng(devices=[]):  # the transforms know only the global generator
            torch.default_generator.manual_seed(self.seeds[index])
            # As for square images, a side is stretched by at most a third more than the other.
            aspect = sides[1] / sides[0]
            crop = tv.RandomResizedCrop(sides, ratio=(3 / 4 * aspect, 4 / 3 * aspect))
            return tv.Compose([crop, tv.RandomHorizontalFlip(), tv.PILToTensor()])(image)


def _covering(image: Image.Image, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image scaled to hold what is wanted, and a margin, without being stretched."""
    # 256 / 224: the margin of ImageNet evaluation since Krizhevsky et al. 2012
    height, width = height * 256 // 224, width * 256 // 224
    if height * image.width >= width * image.height:
        return height, height * image.width // image.height
    return width * image.height // image.width, width


def _stacked(images: list[Tensor | UserError]) -> Tensor | UserError:
    error = next((image for image in images if isinstance(image, UserError)), None)
    return error or torch.stack(images)  # type: ignore[arg-type]


def _context() -> Any:
    """Worker processes without a fork of this one: its threads would not survive that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torchvision.transforms"])
    return context


BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """An image file, of which Pillow has read only the header.

    Raises:
        UserError: if the file is no image, has more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89 million), or turns
            out to be cut short while it is open.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns first and refuses twice as many.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        with image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, *BOMBS) as error:
        raise UserError(f"image '{path}' cannot be read: {error}; replace or remove the file") from error


def read_image(path: str, channels: int = RGB) -> Image.Image:
    """One image file with 8 bits of grey (one channel), of red, green and blue (three), or of alpha, too (four).

    Raises:
        UserError: it cannot be read as that.
    """
    mode = MODES[channels]
    with opened(path) as image:
        if image.mode[0] in "IF":
            raise UserError(f"image '{path}' has mode {image.mode}: convert it to 8 bits a channel")
        image.load()
        if image.mode == mode:
            return image
        # Pillow warns of transparent palettes turned into RGB in one step.
        return (image.convert("RGBA") if image.mode == "P" else image).convert(mode)


def _decoded(paths: Sequence[str], shape: Shape) -> Tensor:
    """uint8 of shape (N, C, H, W): the images pasted one below the other, as one conversion is faster than N."""
    channels, height, width = shape
    strip = Image.new(MODES[channels], (width, height * len(paths)))
    for place, path in enumerate(paths):
        image = read_image(path, channels)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        strip.paste(image, (0, height * place))
    return torch.from_numpy(np.array(strip)).view(-1, height, width, channels).permute(0, 3, 1, 2)


def _fitted(images: Tensor, shape: Shape) -> Tensor:
    """uint8 of shape (N, 1 or 3, H, W) as uint8 of another shape, bilinear, with colours as Pillow converts them."""
    channels, *sides = shape
    if channels == 1 and images.shape[1] == RGB:
        # 0.299 red, 0.587 green and 0.114 blue of ITU-R 601, in 65,536ths.
        weights = torch.tensor([19595, 38470, 7471]).view(RGB, 1, 1)
        images = ((images.int() * weights).sum(1, keepdim=True) + 0x8000 >> 16).to(torch.uint8)
    if list(images.shape[2:]) != sides:
        smooth = interpolate(images.float(), sides, mode="bilinear", antialias=True)
        images = smooth.round_().clamp_(0, 255).to(torch.uint8)
    if channels == 1:
        return images
    colours = images.expand(-1, RGB, -1, -1)
    opaque = torch.full_like(colours[:, :1], 255)
    return colours if channels == RGB else torch.cat([colours, opaque], 1)


def open_images(
    source: Sequence[str] | Tensor, labels: Tensor, shape: Shape, *, augmentable: bool, workers: int
) -> ImageSet:
    """The container that suits the images, not yet normalised.

    Args:
        source: paths of image files, or uint8 of shape (N, 1 or 3, H, W).
        labels: int64 of shape (N,).
        shape: wanted of each. Up to 64 pixels a side the images are stretched to it and kept in memory; larger ones
            are read, resized and cropped when they are needed.
        augmentable: whether images in memory are moved and mirrored for training; larger ones always are.
        workers: processes that read images which are not in memory.

    Raises:
        UserError: if a file that is read now is no image.
    """
    if max(shape[1:]) > SMALL and not isinstance(source, Tensor):
        return StreamImages(labels, source, shape, workers)
    pixels = torch.empty(len(labels), *shape, dtype=torch.uint8)
    for start in range(0, len(labels), 256):
        part = source[start : start + 256]
        pixels[start : start + 256] = _fitted(part, shape) if isinstance(part, Tensor) else _decoded(part, shape)
    return MemoryImages(labels, pixels, augmentable)
