"""A network that really skips: of every layer only the channels an image needs are computed.

Before a gated layer runs, its weights for the chosen outputs and for the inputs that are there are gathered, and the
layer runs with these alone. Several images at once share the union of their channels, and what an image does not need
is zero for it, as under masks. The union grows with the number of images and with how much they differ, so that many
images go in groups of similar ones; into how many, or whether under masks, is measured at first use.
"""

import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.gating.controller import KeepController
from rlprune.gating.gathering import Gathering
from rlprune.gating.network import GatedNetwork
from rlprune.gating.single_image import Quick

REPEATS = 3
"""Timings of each way."""
SIZES = (4, 16)
"""Images of a group, where there is more than one group."""


class SkippingNetwork(nn.Module):
    """What `rlprune.load` gives for a network with gates; for inference.

    Args:
        gated: the network, its permanently removed channels gone, with `runtime`.

    Attributes:
        gated: as given; running it masks and skips nothing.
    """

    def __init__(self, gated: GatedNetwork) -> None:
        super().__init__()
        self.gated = gated
        self._gathering = Gathering(gated)
        self._groups: dict[tuple[int, ...], int] = {}
        self._quick: Quick | None = None

    def set_budget(self, budget: float) -> None:
        """Aim at another mean of MACs per image, relative to the dense network, from the next image on.

        Args:
            budget: within `budgets`.

        Raises:
            UserError: it was never measured there.
        """
        low, high = self.budgets
        if not low <= budget <= high:
            raise UserError(f"a budget of {budget:g} is out of reach: this network serves {low:.3g} to {high:.3g}")
        self.runtime.budget = budget

    @property
    def runtime(self) -> KeepController:
        """The agent."""
        assert isinstance(self.gated.runtime, KeepController)
        return self.gated.runtime

    @property
    def budgets(self) -> tuple[float, float]:
        """The lowest and the highest budget it can be told."""
        points = self.runtime.budgets
        return float(points.min()), float(points.max())

    def forward(self, images: Tensor) -> Tensor:
        """(images, classes) logits.

        In training mode, and where that is faster, all channels are computed and those an image does not need are
        zeroed, which gives the same.
        """
        if self.training or torch.compiler.is_compiling():
            return self._masked(images)
        if len(images) == 1:
            return self.gathered(images)
        if (shape := tuple(images.shape)) not in self._groups:
            self._groups[shape] = self._fastest(images)
        return self._in_groups(images, self._groups[shape])

    def train(self, mode: bool = True) -> "SkippingNetwork":
        """As of any module; batch norms are read anew afterwards."""
        self._forget()
        super().train(mode)
        return self

    def _masked(self, images: Tensor) -> Tensor:
        logits: Tensor = self.gated(images)
        return logits

    def _in_groups(self, images: Tensor, groups: int) -> Tensor:
        """As `forward`, in so many groups, or all together under masks where there are none."""
        return self.grouped(images, groups) if groups else self._masked(images)

    def grouped(self, images: Tensor, groups: int) -> Tensor:
        """(images, classes) logits, for every group computing the union of the channels that its images need.

        Images that are about as bright look alike to the first gates, and these foretell what the later ones keep.
        """
        if groups == 1:
            return self.gathered(images)
        order = images.mean(dim=(1, 2, 3)).argsort()
        logits = torch.cat([self.gathered(images[part]) for part in order.chunk(groups)])
        return torch.empty_like(logits).index_copy(0, order, logits)

    def gathered(self, images: Tensor) -> Tensor:
        """(images, classes) logits, computing the union of the channels that these images need."""
        quick = len(images) == 1 and images.device.type == "cpu"
        with torch.no_grad(), self._gathering.on(self._choose if quick else None):
            return self._masked(images)

    def _choose(self, number: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """For a single image."""
        if self._quick is None:
            self._quick = Quick(self.gated, self.runtime)
        mask, factor = self._quick.decide(number, pooled[0].numpy())
        return torch.from_numpy(mask)[None], torch.from_numpy(factor)[None]

    def _apply(self, *args: Any, **kwargs: Any) -> "SkippingNetwork":
        """Moved to another device or type, a module has other tensors."""
        super()._apply(*args, **kwargs)
        self._forget()
        return self

    def _forget(self) -> None:
        """What was read from the tensors."""
        self._quick = None
        self._gathering.forget()

    def _fastest(self, images: Tensor) -> int:
        """The number of groups that takes the least time for so many images."""
        seconds: dict[int, list[float]] = {0: [], 1: []}
        seconds |= {math.ceil(len(images) / size): [] for size in SIZES}
        for _ in range(REPEATS):
            for groups, times in seconds.items():
                start = time.perf_counter()
                with torch.no_grad():
                    self._in_groups(images, groups)
                if images.is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
        return min(seconds, key=lambda groups: statistics.median(seconds[groups]))
