"""What torch has saved, read without unpickling anything but tensors and without unpacking more than there is."""

import warnings
import zipfile
from pathlib import Path

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
