"""What was decoded before is taken again, unless a file or the cache is not as it was."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlprune.data import cache
from rlprune.data.cache import cached


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(cache, "MANY", 3)
    return tmp_path / "cache" / "images"


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    names = [tmp_path / f"{number}.txt" for number in range(4)]
    for name in names:
        name.write_text(name.stem)
    return list(map(str, names))


@pytest.fixture
def known(paths: list[str]) -> Callable[..., bool]:
    """Whether a tensor was taken from the cache; it must be the right one either way."""

    def known(asked: list[str] = paths, what: str = "pixels") -> bool:
        made: list[Tensor] = []
        expected = torch.arange(24, dtype=torch.uint8).view(4, 6)

        def make() -> Tensor:
            made.append(expected.clone())
            return made[0]

        assert torch.equal(cached(what, asked, (4, 6), make), expected)
        return not made

    return known


def test_a_tensor_is_made_once(folder: Path, known: Any, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [known(), known(), known(what="levels"), known(what="levels")] == [False, True, False, True]
    monkeypatch.chdir(Path(paths[0]).parent)
    assert known([Path(path).name for path in paths])
    monkeypatch.setattr(cache, "RULES", cache.RULES + 1)
    assert not known()
    assert [*folder.iterdir()] == [*folder.glob("*.safetensors")]


def test_what_is_known_may_be_changed_without_a_trace(folder: Path, known: Any, paths: list[str]) -> None:
    known()
    cached("pixels", paths, (4, 6), torch.empty).fill_(9)
    assert known()


@pytest.mark.parametrize("change", ["content", "size", "time", "order", "name", "replaced"])
def test_a_folder_that_is_not_as_it_was_is_noticed(
    folder: Path, known: Any, paths: list[str], tmp_path: Path, change: str
) -> None:
    known()
    file, facts = Path(paths[1]), os.stat(paths[1])
    if change in ("content", "size"):
        file.write_text("2" if change == "content" else "11")
    elif change == "time":
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    elif change == "order":
        paths.reverse()
    elif change == "name":
        paths[1] = str(file.rename(tmp_path / "other.txt"))
    else:
        # As unpacking an archive does: of the same size, and with the time that the archive says.
        (tmp_path / "new").write_text("3")
        os.utime(tmp_path / "new", ns=(facts.st_atime_ns, facts.st_mtime_ns))
        (tmp_path / "new").replace(file)
    assert not known()
    assert known()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "pickle", "shape", "no checksum", "removed"])
def test_a_damaged_cache_is_made_anew(folder: Path, known: Any, damage: str) -> None:
    known()
    (entry,) = folder.iterdir()
    content = entry.read_bytes()
    if damage in ("shape", "no checksum"):
        tensor = load_file(entry)["tensor"]
        if damage == "shape":
            tensor = tensor.view(6, 4)
        facts = {"checksum": cache._checksum(tensor)} if damage == "shape" else None
        save_file({"tensor": tensor}, entry, facts)
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        changed = {"empty": b"", "cut": content[:-3], "flipped": flipped, "pickle": b"\x80\x04N."}
        entry.write_bytes(changed.get(damage, b""))
        if damage == "removed":
            entry.unlink()
    assert [known(), known()] == [False, True]
    assert load_file(entry)["tensor"].shape == (4, 6)


def test_few_files_leave_no_trace(folder: Path, known: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MANY", 5)
    assert [known(), known()] == [False, False]
    assert not folder.exists()


def test_those_not_used_for_longest_go_first(folder: Path, known: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        known(what=str(number))
        for path in folder.iterdir():
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert known(what="0")
    size = next(folder.iterdir()).stat().st_size
    monkeypatch.setattr(cache, "LIMIT", 3 * size)
    assert not known(what="3")
    assert [known(what="0"), known(what="2"), known(what="3")] == [True, True, True]
    assert not known(what="1")
    # What is too large for all of it is not kept.
    monkeypatch.setattr(cache, "LIMIT", 23)
    assert not known(what="4")
    assert len(list(folder.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(folder: Path, known: Any) -> None:
    folder.parent.mkdir()
    folder.write_text("no folder")
    assert [known(), known()] == [False, False]


def test_a_file_that_is_missing_is_told_by_whoever_reads_it(folder: Path, known: Any, paths: list[str]) -> None:
    assert not known([*paths[1:], "missing"])
    assert not folder.exists()
