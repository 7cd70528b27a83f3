"""The run folder: which run it belongs to, what has been evaluated, and how an unfinished run continues.

A search is a deterministic function of its settings and its evaluations. Every evaluation is logged as it is made;
the same command on an unfinished folder walks the same path again, takes what it knows from the log, and goes on
where the log ends.
"""

import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rlprune.config.commands import USUAL_METHODS, Compare, Search
from rlprune.config.options import Settings
from rlprune.config.resolve import as_dict, differences, to_yaml
from rlprune.errors import UserError
from rlprune.runs.journal import Journal, Known
from rlprune.utils.environment import environment, today
from rlprune.utils.files import FileFormat, check_writable, is_empty, write_json, write_text

T = TypeVar("T", bound=Settings)
RUN_FORMAT = FileFormat("rlprune-run")


def parts_of(folder: Path) -> list[Path]:
    """The folders of the networks of a run that has several, or the run's own."""
    parts = sorted(inner.parent for inner in folder.glob("*/config.yaml"))
    return parts if parts and (folder / "config.yaml").is_file() else [folder]


# These do not change what a run finds, so that a run may continue with others.
ELSEWHERE = ("out", "device", "workers", "data_root", "download")
# Settings that did not always exist, and what goes without saying: older runs keep their names, and continue.
NEWER: dict[str, tuple[object, ...]] = {
    "channels": (None, 3),
    "new_head": (False,),
    "weight_decay": (None,),
    "label_smoothing": (None, 0.0),
    "augment": (None, "standard"),
    "schedule": (None, "usual"),
    "decide": ("channels",),
    "criteria": (None,),
    "repair": ("bn",),
    "unit": ("channel",),
}
# What went without saying then, where it is not what goes without saying now.
OLDER: dict[str, object] = {"weight_decay": 5e-4}
# What it comes to where a run that is begun now leaves a setting open; what agents decide also depends on the budget.
OPEN: dict[str, object] = {"distill": True, "methods": USUAL_METHODS}
MARKER = Path("state") / "run.json"
INPUTS = Path("state") / "inputs.json"


class RunFolder:
    """A folder that belongs to one run.

    Args:
        path: the folder; made if it is not there.
        config: the run's settings.

    Attributes:
        episodes: every evaluation.
        tunings: every fine-tuning of a plan.

    Raises:
        UserError: the folder cannot be written, or belongs to a different run.
    """

    def __init__(self, path: Path, config: Settings) -> None:
        self.path = path
        self.check(path, config)
        # Written last, so that a run that was stopped in between writes all of them.
        if not (path / "environment.json").is_file():
            RUN_FORMAT.write(path / MARKER, {"settings": identity(config)})
            write_text(path / "config.yaml", to_yaml(config))
            write_text(path / "command.txt", shlex.join(["rlprune", *sys.argv[1:]]) + "\n")
            write_json(path / "environment.json", {"date": today(), **environment()})
        self.episodes, self.tunings = Journal(path / "episodes.csv"), Journal(path / "tunings.csv")

    @staticmethod
    def check(path: Path, config: Settings) -> None:
        """Raise UserError unless a folder is free or belongs to a run of these settings; changes nothing."""
        if (path / MARKER).is_file():
            there = _stored(path / MARKER, "settings")
            unsaid = _unsaid(path)
            here = {key: value for key, value in identity(config).items() if unsaid.get(key) != value}
            if different := differences(there, here):
                lines = "\n  ".join(different)
                raise UserError(f"{path} belongs to a different run; choose another --out\n  {lines}")
        elif path.exists() and not (path.is_dir() and is_empty(path)):
            raise UserError(f"{path} exists and is not a run folder: choose another --out")
        check_writable(path)

    def same_inputs(self, fingerprint: Mapping[str, str]) -> None:
        """Remember hashes of the dense weights and the images, or refuse if an unfinished run had others."""
        path = self.path / INPUTS
        if not path.is_file():
            RUN_FORMAT.write(path, {"inputs": dict(fingerprint)})
        elif different := differences(_stored(path, "inputs"), fingerprint):
            raise UserError(
                f"{self.path} was begun with other inputs; choose another --out\n  " + "\n  ".join(different)
            )

    def seconds(self) -> float:
        """Seconds of measuring that the journals already hold."""
        return max(self.episodes.seconds(), self.tunings.seconds())


def as_begun(folder: Path, config: T, tell: Callable[[str], None] = lambda text: None) -> T:
    """Settings as a run was begun with them, for what goes without saying changes from version to version.

    What is left open is what the run was begun with; what an older version did not ask for, what went without saying
    then. So a run goes on as it was begun, unless somebody asks for something else.

    Args:
        folder: of the run, which may not be there yet.
        config: its settings.
        tell: hears where that is not what a new run would have.
    """
    there = _stored(folder / MARKER, "settings") if (folder / MARKER).is_file() else {}
    usuals = _usuals(config)
    before = {key: NEWER[key][0] for key in usuals if there and key in NEWER}
    begun = {key: there.get(key, before.get(key, usual)) for key, usual in usuals.items()} | _unsaid(folder)
    begun = {key: value for key, value in begun.items() if getattr(config, key, "") is None}
    for key, usual in usuals.items():
        if (value := begun.get(key, usual)) != usual:
            how = f"--no-{key}" if value is False else f"--{key} {value}"
            tell(f"{folder} was begun with {how} and goes on so; for another run choose another --out")
    return replace(config, **begun)


def _usuals(config: Settings) -> dict[str, object]:
    """What `OPEN` comes to with these settings."""
    decide = {"decide": config.usual_decide} if isinstance(config, Search | Compare) else {}
    return {**OPEN, **decide}


def _unsaid(folder: Path) -> dict[str, Any]:
    """Of `OLDER` what a run does not mention."""
    path = folder / "config.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else None
    return {
        key: value for key, value in OLDER.items() if lines and not any(line.startswith(f"{key}:") for line in lines)
    }


def _stored(path: Path, name: str) -> dict[str, Any]:
    """Names and values that a run has kept in a file of its own."""
    found = RUN_FORMAT.read(path).get(name)
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it has no {name}")
    return found


def weights_in(folder: Path) -> list[str]:
    """The hash of the dense weights that a run was begun with; none where it has not begun."""
    path = folder / INPUTS
    return [_stored(path, "inputs").get("dense weights", "")] if path.is_file() else []


def known_in(folder: Path, fingerprint: Mapping[str, str]) -> Known:
    """Every evaluation that a run, or the search of one of its networks, has logged for inputs with these hashes."""
    for inputs in (folder / INPUTS, *sorted(folder.glob(f"*/{INPUTS}"))):
        episodes = inputs.parents[1] / "episodes.csv"
        logged = inputs.is_file() and episodes.is_file()
        if logged and not differences(_stored(inputs, "inputs"), fingerprint):
            return Journal(episodes).known()
    return {}


def date_of(*folders: Path) -> str:
    """The date on which a run was begun, from the first of some folders that knows it; today where none does."""
    for path in (folder / "environment.json" for folder in folders):
        known = json.loads(path.read_text(encoding="utf-8")).get("date") if path.is_file() else None
        if isinstance(known, str):
            return known
    return today()


def finished(folder: Path) -> bool:
    """Whether a folder holds a result."""
    return (folder / "result.json").is_file()


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json` to a folder, which makes its run a finished one."""
    RUN_FORMAT.write(folder / "result.json", result)


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a finished run in a folder.

    Raises:
        UserError: there is none that can be read.
    """
    return RUN_FORMAT.read(folder / "result.json")


def identity(config: Settings) -> dict[str, Any]:
    """The settings that make a run the run it is."""
    settings = {key: value for key, value in as_dict(config).items() if key not in ELSEWHERE}
    settings |= {key: value for key, value in _usuals(config).items() if key in settings and settings[key] is None}
    return {key: value for key, value in settings.items() if value not in NEWER.get(key, ())}


def default_folder(config: Search) -> Path:
    """`runs/MODEL-DATA-BUDGET-AGENT-seedN-HASH`: the same command finds the same folder again."""
    given = config.budget if config.budget is not None else "balance"
    return folder_of(config, config.model, config.data, given, config.agent, f"seed{config.seed}")


def folder_of(config: Settings, *words: object) -> Path:
    """A folder under `runs` that is named by some of the settings, and by a hash of all that make the run."""
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:6]
    return Path("runs") / "-".join([*(_word(str(word)) for word in words), digest])


def _word(text: str) -> str:
    """The last part of a path, with nothing a file name should not hold."""
    last = text.rstrip("/").rpartition("/")[2] or text
    return "".join(letter if letter.isalnum() or letter in "._=" else "_" for letter in last)
