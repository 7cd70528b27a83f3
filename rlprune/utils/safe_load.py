"""What torch has saved, read without unpickling anything but tensors and without unpacking more than there is."""

import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch

from rlprune.errors import UserError


def load_plain(path: Path) -> object:
    """The tensors and plain containers in a file of `torch.save`, on the CPU.

    Raises:
        UserError: it would unpack to more than the file.
        Exception: any at all where it is no such file; pickle.UnpicklingError where it holds something else.
    """
    require_stored(path)
    with warnings.catch_warnings():
        # torch warns of unusual pickle protocols before it reads or refuses them.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def require_stored(path: Path) -> None:
    """Raise UserError if a zip file holds more than its own size, as nothing that `torch.save` writes does.

    It never compresses, so that what is compressed, or what several entries share, was made to fill the memory.

    Args:
        path: any file; one that is no zip file passes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError):
        return  # whoever reads it will say what is wrong
    inside, outside = sum(entry.file_size for entry in entries), path.stat().st_size
    if inside > outside:
        raise UserError(
            f"{path} has {outside:,} bytes and unpacks to {inside:,}, which torch.save never writes: save the weights "
            "anew with torch.save or as safetensors"
        )


class Foreign:
    """Stands for whatever in a file is neither a tensor nor a plain container; nothing of it is made or run.

    Attributes:
        path: what the file calls its class or function.
    """

    path: ClassVar[str] = ""

    def __init__(self, *_: object) -> None:
        """Whatever it would have been made of is left aside."""

    def __setstate__(self, state: object) -> None:
        """Whatever it would have held as well."""


def load_tensors(path: Path) -> object:
    """The same as `load_plain` for files in which a training script has left other things beside the weights.

    Raises:
        UserError, Exception: see `load_plain`; also where tensors themselves would be made by foreign code.
    """
    if not zipfile.is_zipfile(path):
        return load_plain(path)
    with zipfile.ZipFile(path) as archive:
        if any(entry.endswith("/constants.pkl") for entry in archive.namelist()):
            raise UserError(
                f"{path} is a TorchScript program and no checkpoint: save the weights in it by "
                "torch.save(torch.jit.load(path).state_dict(), other_path)"
            )
    require_stored(path)
    # Before 2.6, PyTorch could not name what is foreign, and refuses the file.
    named: Callable[[Path], list[str]] = getattr(
        torch.serialization, "get_unsafe_globals_in_checkpoint", lambda path: []
    )
    inert: list[Any] = [(type("Foreign", (Foreign,), {"path": name}), name) for name in named(path)]
    with torch.serialization.safe_globals(inert) if inert else nullcontext():
        return load_plain(path)
