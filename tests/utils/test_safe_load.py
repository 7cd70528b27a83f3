import zipfile
from pathlib import Path

import pytest
import torch

from rlprune.errors import UserError
from rlprune.utils.safe_load import require_stored


def test_what_torch_saves_passes_and_what_is_compressed_does_not(tmp_path: Path) -> None:
    plain, bomb = tmp_path / "plain.pt", tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(100_000), "b": torch.ones(3)}, plain)
    require_stored(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match=r"bomb.pt has [\d,]+ bytes and unpacks to 40\d,\d{3}"):
        require_stored(bomb)


def test_whoever_reads_a_damaged_file_says_so(tmp_path: Path) -> None:
    for content in (b"", b"PK\x05\x06", b"PK\x05\x06" + b"\xff" * 18, b"text"):
        (tmp_path / "file").write_bytes(content)
        require_stored(tmp_path / "file")
