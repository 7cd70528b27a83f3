"""Files that are small on disk and enormous once they are open."""

import zipfile
from pathlib import Path

from rlprune.errors import UserError


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
