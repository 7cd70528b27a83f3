"""The settings of a training."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from rlprune.errors import UserError, unknown
from rlprune.tasks.base import AS_THEY_ARE, AUGMENTATIONS, STANDARD

USUAL, LONG = "usual", "long"
WARM_UP = {USUAL: 0.3, LONG: 0.05}
"""Share of the steps in which the learning rate rises to its peak, for each schedule."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    SGD with Nesterov momentum 0.9 under a one-cycle schedule (Smith & Topin 2017, arXiv 1708.07120) annealed to zero.

    Attributes:
        epochs: passes over the images; 0 trains nothing.
        lr: the peak of the schedule; by default 0.1 at 128 images a step, and in proportion to them (the linear
            scaling rule of Goyal et al. 2017, arXiv 1706.02677).
        recovery: the network has been trained before and then pruned: the default ``lr`` is 0.03 instead of 0.1.
        batch_size: images a step, at least 2; by default 128, and from 127 down to 16 where 128 would leave less than
            40 steps an epoch.
        weight_decay: L2 coefficient; biases and normalisation parameters are not decayed (He et al. 2018, arXiv
            1812.01187).
        label_smoothing: in [0, 1].
        augment: how the images are changed at random, one of `rlprune.tasks.base.AUGMENTATIONS`.
        schedule: usual, the learning rate rises for 30 % of the steps; long, for 5 %, the warm-up of Goyal et al. 2017
            (arXiv 1706.02677) for trainings of 100 epochs. Then it falls to zero along a cosine.
        seed: not negative. Every epoch draws its randomness from (seed, epoch) alone.
    """

    epochs: int
    lr: float | None = None
    recovery: bool = False
    batch_size: int | None = None
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augment: str = STANDARD
    schedule: str = USUAL
    seed: int = 0

    def resolved(self, images: int) -> "Resolved":
        """The same with the defaults that depend on how many images there are.

        Raises:
            UserError: a setting is out of range.
        """
        batch_size = usual_batch_size(images) if self.batch_size is None else self.batch_size
        lr = (0.03 if self.recovery else 0.1) * batch_size / 128 if self.lr is None else self.lr
        full = replace(self, lr=lr, batch_size=batch_size)
        _check({**asdict(full), "images": images})
        return Resolved(**asdict(full), images=images)


@dataclass(frozen=True, kw_only=True)
class Resolved(TrainingConfig):
    """Settings of which none is open.

    Attributes:
        images: that are trained on.
    """

    lr: float
    batch_size: int
    images: int

    @property
    def steps(self) -> int:
        """Steps in all; a trailing batch of one is left out, batch norm has no variance to take there."""
        return self.epochs * (self.images // self.batch_size + (self.images % self.batch_size > 1))

    def identity(self) -> dict[str, Any]:
        """What makes a training the one it is, for a state to belong to it; in words that older states have, too."""
        facts = {key: value for key, value in asdict(self).items() if key != "recovery"}
        facts["augment"] = {STANDARD: True, AS_THEY_ARE: False}.get(self.augment, self.augment)
        return facts if self.schedule != USUAL else {key: value for key, value in facts.items() if key != "schedule"}


def usual_batch_size(images: int) -> int:
    """How many of so many images a step takes by default."""
    return max(16, min(128, images // 40))


def _check(settings: dict[str, Any]) -> None:
    least = {"epochs": 0, "batch_size": 2, "weight_decay": 0, "label_smoothing": 0, "seed": 0, "images": 2}
    for name, bound in least.items():
        if settings[name] < bound:
            raise UserError(f"training with {name} = {settings[name]}: it must be at least {bound}")
    if not settings["lr"] > 0:
        raise UserError(f"training with lr = {settings['lr']}: it must be above 0, such as 0.1")
    for name, known in {"augment": AUGMENTATIONS, "schedule": tuple(WARM_UP)}.items():
        if settings[name] not in known:
            raise unknown(name, settings[name], known)
    if settings["label_smoothing"] > 1:
        raise UserError(f"training with label_smoothing = {settings['label_smoothing']}: it must be at most 1")
