"""Plan -> loss, accuracy and cost on the search split, run on real slices after batch-norm recalibration."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rlprune.finite import require_variance
from rlprune.graph import Graph
from rlprune.memory import Chunks, all_at_once
from rlprune.modules import NORMS, copy_sharing_weights, named_tensors
from rlprune.plan import plan_key, top_mask
from rlprune.pruner import Slicer, install


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found on the search split: mean cross-entropy at the best temperature, accuracy in [0, 1]."""

    loss: float
    accuracy: float


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
    ) -> None:
        self.graph = graph
        self.dense = module
        self.slicer = Slicer(graph, named_tensors(module))
        self.module = copy_sharing_weights(module).eval()
        self.norms = _norms(self.module)
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
            UserError: there is no memory for the calibration images, or for a single one.
        """
        install(self.module, self.dense, self.slicer.slices(kept))
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


def _norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms with statistics to set; those without always use the batch's own."""
    return [layer for layer in module.modules() if isinstance(layer, NORMS) and layer.running_mean is not None]


def recalibrate(module: nn.Module, images: Tensor) -> None:
    """Set a network's batch-norm statistics from one batch of images (N, C, H, W); it ends in eval mode.

    Raises:
        UserError: a batch norm has no variance to take from them, or there is no memory for them.
    """
    require_variance(module.eval(), images)
    if norms := _norms(module.eval()):
        with recalibrating(norms), all_at_once(images), torch.no_grad():
            module(images)


class Evaluator:
    """Scores kept counts on the search split and remembers what it has seen.

    Args:
        runner: runs the sliced network.
        scores: (all groups' channels,) from a criterion; decides which channels stay.
        images: (N, C, H, W) of the search split.
        labels: (N,).
        seen: what is known already, by kept counts.
        on_new: told the counts and the evaluation of every plan that had to be run.
    """

    def __init__(
        self,
        runner: SliceRunner,
        scores: np.ndarray,
        images: Tensor,
        labels: Tensor,
        seen: dict[tuple[int, ...], Evaluation] | None = None,
        on_new: Callable[[np.ndarray, Evaluation], None] | None = None,
    ) -> None:
        self.runner = runner
        self.scores = scores
        self.images = images
        self.labels = labels
        self.seen = {} if seen is None else seen
        self.on_new = on_new

    def __call__(self, counts: np.ndarray) -> Evaluation:
        """Evaluate one plan.

        Args:
            counts: (groups,) kept channels.
        """
        key = plan_key(counts)
        if key not in self.seen:
            logits = self.runner.logits(top_mask(self.runner.graph, counts, self.scores), self.images)
            self.seen[key] = measure(logits, self.labels)
            if self.on_new:
                self.on_new(counts, self.seen[key])
        return self.seen[key]


def measure(logits: Tensor, labels: Tensor) -> Evaluation:
    """Calibrated cross-entropy and accuracy of (N, classes) logits against (N,) labels.

    The loss is the lowest over all temperatures (Guo et al., 2017, arXiv 1706.04599). Pruning changes the scale of the
    logits, which fine-tuning repairs within a few steps; without the temperature a search is paid for doubt instead of
    accuracy (see docs/search.md).
    """
    # Here, for whoever replays a policy without measuring anything should not wait for it.
    from scipy.optimize import minimize_scalar

    logits, labels = logits.double().cpu(), labels.cpu()
    # What overflows says nothing of its image: all classes are alike to it, and its answer is wrong.
    finite = torch.isfinite(logits).all(1)
    logits = torch.where(finite[:, None], logits, 0.0)

    def loss(log_scale: float) -> float:
        return F.cross_entropy(logits * math.exp(log_scale), labels).item()

    best = minimize_scalar(loss, bounds=(-5, 3), method="bounded", options={"xatol": 1e-4})
    return Evaluation(float(best.fun), ((logits.argmax(1) == labels) & finite).double().mean().item())
