"""Options that several commands share: their names, types, defaults and help."""

# ruff: noqa: RUF009  (`setting` makes a dataclass field, which is what a default may call)

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NewType

from rlprune.errors import UserError
from rlprune.utils.criteria import DEFAULT, parse_criteria
from rlprune.utils.shapes import LARGEST_SIDE

Floats = tuple[float, ...]
Paths = tuple[Path, ...]
Auto = Literal["auto"]
Channels = Literal[1, 3, 4]
Sides = NewType("Sides", str)
"""Height x width where they differ."""
ModelArgs = NewType("ModelArgs", str)
"""A mapping as text."""


# Told alike wherever a command asks for the same thing with another default.
MODEL = "vgg16, resnet20, mobilenetv2, torchvision/NAME, timm/NAME or file.py:factory"
MODEL_ARGS = "arguments of the network, such as width=0.25 or 'layers=[8,16],act=relu'"
CHECKPOINT = "file with the weights of the dense network"
DATA = "digits, cifar10, cifar100, fashion-mnist, imagenet or folder:PATH"
BUDGET = "what may be KEPT: 0.3, macs=0.3,params=0.4, latency=0.5 or latency=8ms"
CRITERION = "which channels of a group go first; 'conv1=l1,layer3.*=l2' says it group by group"
KNOWN = "; known"
REPAIR = "repairs without training, of every evaluated network and the final one alike, such as merge,reconstruct,bn"
USUAL_REPAIR = "bn"
"""As it has always been: batch norm is recalibrated, and no more."""
UNIT = "what goes: channels, or with kernel-group input slices inside groups of each layer's filters"
DISTILL = "the pruned network also learns from the outputs of the dense one"
FOLDER = "a run folder or a pruned folder"
CHANNELS = "channels of an image: 1 for grey, 3 for colour, 4 with transparency"
IMAGE_SIZE = "pixels a side, or height x width such as 32x48"
BACKENDS = ("torch", "compile", "onnxruntime")
# The same words as in `rlprune.tasks.base` and `rlprune.training.config`, which take a second to import.
AUGMENTATIONS = ("none", "flip", "standard", "cutout")
USUAL, LONG = SCHEDULES = ("usual", "long")


def setting(
    default: Any = MISSING,
    *,
    help: str,
    unset: str = "",
    choices: tuple[str, ...] = (),
    method: str = "",
    check: Callable[[str], object] | None = None,
    minimum: int | None = None,
    maximum: int | None = None,
    above: float | None = None,
    positional: str = "",
) -> Any:
    """A field of a command; the command line and the checks are derived from it.

    Args:
        default: without one the setting is required.
        help: one sentence for ``--help``.
        unset: what happens when it is left at ``None``, for ``--help``.
        choices: the only values allowed, if any; beside the methods of a kind, if there is one.
        method: the kind of method that it names, one of `rlprune.registry.KINDS`.
        check: raises UserError for a text that cannot be used; by default one that is no method of the kind.
        minimum: the smallest value allowed.
        maximum: the largest value allowed.
        above: every value must be larger than this.
        positional: how the command line calls it where it is an argument rather than an option.
    """
    metadata: dict[str, Any] = {
        "help": help,
        "unset": unset,
        "choices": choices,
        "method": method,
        "check": check,
        "positional": positional,
    }
    return field(default=default, metadata=metadata | {"minimum": minimum, "maximum": maximum, "above": above})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all commands have in common."""

    title: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """Which network; a run or a plan knows its own."""

    title: ClassVar[str] = "Network"
    model: str | None = setting(None, help=MODEL, unset="that of the run or plan")
    model_args: ModelArgs | str | None = setting(None, help=MODEL_ARGS, unset="none")
    new_head: bool = setting(
        False, help="a fresh last layer where the network has another number of outputs than classes"
    )
    checkpoint: Path | None = setting(None, help=CHECKPOINT, unset="the run's")


@dataclass(frozen=True, kw_only=True)
class NewNetwork(Network):
    """A network that no run knows yet."""

    model: str = setting(help=MODEL)
    checkpoint: Path | None = setting(None, help=CHECKPOINT, unset="fresh weights")


@dataclass(frozen=True, kw_only=True)
class Data(Settings):
    """Which images."""

    title: ClassVar[str] = "Data"
    data: str = setting("digits", help=DATA)
    data_root: Path | None = setting(None, help="folder of the data sets known by name", unset="in the user's cache")
    download: bool = setting(False, help="download the data set where it is missing")
    image_size: int | Sides | None = setting(
        None, help=IMAGE_SIZE, unset="the data set's", minimum=1, maximum=LARGEST_SIDE
    )
    channels: Channels | None = setting(None, help=CHANNELS, unset="3")
    mean: Floats | None = setting(
        None, help="mean of each channel in 0..1, such as 0.49,0.48,0.45 for red, green and blue", unset="measured"
    )
    std: Floats | None = setting(None, help="standard deviation, alike", unset="measured")
    search_images: int | None = setting(
        None, help="training images held out to score plans on", unset="5 %, at most 500 or 5 a class", minimum=1
    )
    calibration_images: int | None = setting(
        None, help="training images to recalibrate batch norm on", unset="2.5 %, at most 200", minimum=1
    )
    workers: int | None = setting(
        None, help="processes that read large images", unset="one for every second core, at most 8", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class KeptData(Data):
    """What a plan keeps of the images that it was made for."""

    seed: int = setting(0, help="of everything random", minimum=0, maximum=2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class RunData(Data):
    """The images of a run or a plan, unless others are named."""

    data: str | None = setting(  # type: ignore[assignment]
        None, help=DATA, unset="that of the run or plan"
    )


@dataclass(frozen=True, kw_only=True)
class Device(Settings):
    """Where to compute."""

    title: ClassVar[str] = "Run"
    device: str = setting("auto", help="auto, cpu, cuda, cuda:N or mps")


@dataclass(frozen=True, kw_only=True)
class Run(Device):
    """Where to compute, from which seed, and where the results go."""

    seed: int = setting(0, help="of everything random", minimum=0, maximum=2**32 - 1)
    out: Path | None = setting(None, help="folder of the results", unset="a new one")


@dataclass(frozen=True, kw_only=True)
class Structure(Settings):
    """Which groups of channels may be cut."""

    title: ClassVar[str] = "Pruning"
    include: str | None = setting(
        None, help="cut only what these layers produce, such as 'layer3.*,layer4'", unset="all that can be"
    )
    exclude: str | None = setting(None, help="never cut what these layers produce", unset="none")
    group: str | None = setting(
        None,
        help="groups by hand, the layers that make the channels > those that read them: 'conv1,bn1 > conv2; ...'",
        unset="traced",
    )


@dataclass(frozen=True, kw_only=True)
class Rounding(Structure):
    """Which numbers of channels are allowed."""

    title: ClassVar[str] = "Pruning"
    round_to: int | Auto = setting(
        1, help="kept channels of a group are a multiple of this; auto measures which one the backend likes", minimum=1
    )
    min_channels: int = setting(1, help="channels every group keeps at least", minimum=1)


@dataclass(frozen=True, kw_only=True)
class Pruning(Rounding):
    """Which channels go."""

    criterion: str = setting(DEFAULT, help=CRITERION + KNOWN, method="criterion", check=parse_criteria)
    unit: str = setting("channel", help=UNIT, method="unit")


@dataclass(frozen=True, kw_only=True)
class Timing(Settings):
    """How the network will be run: for budgets of latency and for --round-to auto."""

    title: ClassVar[str] = "Latency"
    backend: str | None = setting(None, help="what will run the network", unset="torch", choices=BACKENDS)
    batch: int | None = setting(None, help="images at once", unset="1", minimum=1)
    threads: int | None = setting(None, help="threads of a CPU", unset="as many as torch takes", minimum=1)


@dataclass(frozen=True, kw_only=True)
class Optimiser(Settings):
    """How a training steps."""

    title: ClassVar[str] = "Training"
    lr: float | None = setting(None, help="peak learning rate", unset="0.1 * batch / 128, fine-tuning 0.03", above=0)
    batch_size: int | None = setting(None, help="images a step", unset="128, fewer on small data sets", minimum=2)
    weight_decay: float | None = setting(
        None,
        help="L2 coefficient of weights",
        unset="5e-4, or 1e-4 from 100,000 images or 128 pixels a side on",
        minimum=0,
    )
    label_smoothing: float | None = setting(
        None, help="share of every label that is spread over all classes", unset="0", minimum=0, maximum=1
    )
    augment: str | None = setting(
        None,
        help="random changes of training images: flip mirrors half of them, standard also moves or crops, cutout also "
        "blackens a part",
        unset="standard, digits stay as they are",
        choices=AUGMENTATIONS,
    )


@dataclass(frozen=True, kw_only=True)
class Training(Optimiser):
    """One training."""

    epochs: int | None = setting(None, help="passes over the training images", unset="the data set's", minimum=0)


@dataclass(frozen=True, kw_only=True)
class Recovery(Optimiser):
    """The training of a pruned network."""

    schedule: str | None = setting(
        None,
        help="of the fine-tuning; long is that of the literature, about 100 epochs unless their number is given, of "
        "which 5 % warm up",
        unset="usual",
        choices=SCHEDULES,
    )


@dataclass(frozen=True, kw_only=True)
class BothTrainings(Recovery):
    """The training of the dense network and that of the pruned one."""

    train_epochs: int | None = setting(
        None, help="epochs of the dense network, if no checkpoint is given", unset="the data set's", minimum=0
    )
    finetune_epochs: int | None = setting(None, help="epochs of the pruned network", unset="the data set's", minimum=0)
    distill: bool | None = setting(None, help=DISTILL, unset="yes")

    @property
    def distills(self) -> bool:
        """Whether the pruned network learns from the dense one, too: unless somebody says no."""
        return self.distill is not False

    def check_schedule(self) -> None:
        """Raise UserError where a schedule is asked for a fine-tuning that is left out."""
        if self.schedule == LONG and self.finetune_epochs == 0:
            raise UserError(
                "--schedule long is for a fine-tuning, and --finetune-epochs is 0: say how many, such as 100"
            )
