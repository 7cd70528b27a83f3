"""A network run with the kept slices of its tensors, its batch norm recalibrated in the same pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rlprune.graph.removal import put, take_out
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import Slicer, install
from rlprune.utils.finite import require_variance
from rlprune.utils.memory import Chunks, all_at_once
from rlprune.utils.modules import NORMS, copy_sharing_weights, named_tensors, unwrapped


class Slices(Protocol):
    """What stands in the place of a network's tensors when some of it goes."""

    def slices(self, kept: np.ndarray) -> Mapping[str, Tensor]:
        """Every tensor as it then is, by name.

        Args:
            kept: (all groups' channels,) bool, True where a channel stays.
        """

    def features(self, kept: np.ndarray) -> Mapping[str, int]:
        """Layer -> channels that are left, for norms without tensors."""


class SliceRunner:
    """Runs a network with the kept slices of its tensors; nothing is masked, smaller tensors do less work.

    Batch norm is recalibrated as EagleEye does (Li et al., 2020, arXiv 2007.02491): one pass over the calibration
    images in training mode sets its statistics, then the images are run with them. The result equals that of the
    physically pruned network after the same recalibration.

    Args:
        module: the dense network, on its device; left as it was.
        graph: its structure.
        calibration: (M, C, H, W) images, one batch.
        chunk: images that are run at once; bounds memory. Where there is none, they become fewer.
        dtype: autocast to this type where the device has matrix units for it.
        tell: told that there are fewer.
        slicer: what goes; by default channels.

    Raises:
        UserError: a batch norm has no variance to take from the calibration images.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: Graph,
        calibration: Tensor,
        chunk: int = 250,
        dtype: torch.dtype | None = None,
        tell: Callable[[str], None] = lambda text: None,
        slicer: Slices | None = None,
    ) -> None:
        self.graph = graph
        self.dense = module = unwrapped(module)
        self.slicer = slicer or Slicer(graph, named_tensors(module))
        self.module = copy_sharing_weights(module).eval()
        self._whole = {block.name: self.module.get_submodule(block.name) for block in graph.blocks}
        self.norms = norms_of(self.module)
        require_variance(self.module, calibration)
        self.calibration = calibration
        self.chunks = Chunks(chunk, tell)
        self.dtype = dtype

    def logits(self, kept: np.ndarray, images: Tensor) -> Tensor:
        """Output of the network for the kept channels, (N, classes) float32.

        Args:
            kept: (all groups' channels,) bool.
            images: (N, C, H, W).

        Raises:
            UserError: there is no memory for the calibration images, or for a single one; or a group keeps no channel
                and its block is not taken out.
        """
        for name, block in self._whole.items():
            put(self.module, name, block)
        take_out(self.module, self.graph.taken_out(self.graph.counts_of(kept)))
        install(self.module, self.dense, self.slicer.slices(kept), features=self.slicer.features(kept))
        with torch.inference_mode(), torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            if self.norms:
                with recalibrating(self.norms), all_at_once(self.calibration):
                    self.module(self.calibration)
            return self.chunks(self.module, images)


@contextmanager
def recalibrating(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Within, a forward pass replaces running statistics by those of its batch; outside they are used as they are."""
    for layer in norms:
        # Fresh buffers: the ones there may be the dense network's own.
        for name, buffer in layer.named_buffers():
            setattr(layer, name, buffer.clone())
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def norms_of(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms with statistics to set; those without always use the batch's own."""
    return [layer for layer in module.modules() if isinstance(layer, NORMS) and layer.running_mean is not None]


def recalibrate(module: nn.Module, images: Tensor) -> None:
    """Set a network's batch-norm statistics from one batch of images (N, C, H, W); it ends in eval mode.

    Raises:
        UserError: a batch norm has no variance to take from them, or there is no memory for them.
    """
    require_variance(module.eval(), images)
    if norms := norms_of(module.eval()):
        with recalibrating(norms), all_at_once(images), torch.no_grad():
            module(images)
