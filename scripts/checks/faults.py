"""Break searches in every way that can be provoked, and look whether anything is lost.

    python scripts/checks/faults.py                 # a hundred kills and all other faults; writes docs/reliability.md
    python scripts/checks/faults.py --kills 6       # to see that it works; writes nothing

A search of a small network is killed again and again, at random moments and at chosen ones, and continued by the same
command. It must end as one that was never disturbed: the same files with the same content, but for times, to the bit.
"""

import argparse
import csv
import ctypes
import hashlib
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

import rlprune
import rlprune.agents.search.rounds as agent
from rlprune.errors import UserError
from rlprune.plans.plan import PruningPlan
from rlprune.runs.journal import Journal
from rlprune.training.snapshot import Snapshot
from rlprune.utils.device import machine
from rlprune.utils.memory import Chunks
from rlprune.utils.progress import Progress

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "model": "resnet20",
    "model_args": "width=0.25",
    "data": "digits",
    "image_size": 16,
    "device": "cpu",
}
STATIC: dict[str, Any] = {"budget": 0.4, "evaluations": 44, "finetune_epochs": 2}
RUNTIME: dict[str, Any] = {
    "mode": "runtime", "budget": 0.6, "search_images": 900, "rounds": 2, "rollouts": 2, "finetune_epochs": 2,
}  # fmt: skip
"""Every image its own channels; all that is not held out to search with is trained on, which is few."""
IMAGES, BATCH = 48, 4
"""To train on, as many as the readers cannot have read ahead."""
EACH = 10
"""Kills of one search before it may end."""
SHARE = 0.3
"""Of the kills, those of runtime searches."""
CHANGING = ("environment.json", "command.txt", "report.html", "agent.zip", "owner.json", "tensorboard")
"""They say by whom and when they were made; that they are there is enough, where that may be seen at all."""
TIMES = ("seconds", "latency", "run", "plan", "folder", "out")
"""What is never the same, or another in every folder."""
PAGE = ROOT / "docs" / "reliability.md"
ABOUT = [
    "# Reliability",
    "",
    "`python scripts/checks/faults.py` provokes all this, fails where anything else happens, and writes this part.",
]


class Kind(NamedTuple):
    """A kind of search: what it is called, its settings, how it is killed besides, and what it leaves."""

    name: str
    settings: dict[str, Any]
    points: dict[str, tuple[Callable[[int], None], int]]
    left: str


class Fault(NamedTuple):
    """A line of the table."""

    what: str
    how: str
    happens: str


def main() -> None:
    """Provoke everything, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    agent.WALKS, agent.ROLLOUTS = 32, 1
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        SETTINGS["checkpoint"] = root / "dense.safetensors"
        network = {key: SETTINGS[key] for key in ("model", "model_args", "data", "image_size", "device")}
        rlprune.train(**network, epochs=2, out=SETTINGS["checkpoint"])
        rng, some = np.random.default_rng(given.seed), round(SHARE * given.kills)
        faults = [killed(root / "static", KINDS[0], given.kills - some, rng)]
        faults += [killed(root / "runtime", KINDS[1], some, rng)]
        whole = fingerprint(root / "static" / "whole")
        faults += [fault(root, whole) for fault in OTHERS]
        # Two searches more, which check nothing.
        shares = [f"{100 * saving(root, kind):.1f} % of {kind.name}" for kind in KINDS] if given.kills >= 100 else []
    said = f"Saving what makes this possible, the log and the snapshots, takes {', '.join(shares)} here."
    part = table(ABOUT, faults, *([said] if shares else []))
    print(part)
    if shares:
        write_part(part)


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file that a run has left, without the times."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name == "owner.json" or "tensorboard" in path.parts:
            continue
        found[name] = "" if path.name in CHANGING else hashlib.sha256(lasting(path)).hexdigest()
    return found


def lasting(path: Path) -> bytes:
    """The content of a file without what is never the same."""
    if path.suffix not in (".csv", ".json", ".md", ".yaml"):
        return path.read_bytes()
    text = path.read_text()
    if path.suffix == ".md":
        # A run keeps the date on which it was begun; another one may have been begun on another day.
        return "\n".join(line for line in text.splitlines() if not line.startswith("- date:")).encode()
    if path.suffix == ".json":
        return repr(without_times(json.loads(text))).encode()
    if path.suffix == ".yaml":
        return "\n".join(line for line in text.splitlines() if not line.startswith("out:")).encode()
    return repr([without_times(row) for row in csv.DictReader(text.splitlines())]).encode()


def without_times(data: Any) -> Any:
    """JSON, a row or a part of it, without what is never the same."""
    if isinstance(data, dict):
        return {key: without_times(value) for key, value in data.items() if key not in TIMES}
    return [without_times(value) for value in data] if isinstance(data, list) else data


def require_same(folder: Path, whole: dict[str, str]) -> None:
    """Whether a run has ended like the undisturbed one."""
    here = fingerprint(folder)
    different = sorted(name for name in {**here, **whole} if here.get(name) != whole.get(name))
    assert not different, f"{folder} differs in {different}"


def child(work: Callable[[], object]) -> int:
    """Run something in a copy of this process, which has all libraries already; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        status = 0
    except UserError as error:
        print(f"rlprune: {error}", file=sys.stderr)
        status = 2
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)


def ended(pid: int) -> int:
    """The exit status of a child, negative for the signal that has killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def searching(
    folder: Path, provoke: Callable[[], None] = lambda: None, settings: dict[str, Any] = STATIC
) -> Callable[[], object]:
    """The search, after something was broken for this process."""

    def work() -> object:
        provoke()
        return rlprune.search(**SETTINGS, **settings, out=folder)

    return work


def killed(root: Path, kind: Kind, kills: int, rng: np.random.Generator) -> Fault:
    """Kill searches at random moments and at chosen ones, until there were so many kills."""
    start = time.perf_counter()
    rlprune.search(**SETTINGS, **kind.settings, out=root / "whole")
    seconds, whole = time.perf_counter() - start, fingerprint(root / "whole")
    done: Counter[str] = Counter()
    searches = 0
    while done.total() < kills:
        folder, searches, before = root / f"killed-{searches}", searches + 1, done.total()
        while done.total() < min(before + EACH, kills) and (when := kill(folder, kind, seconds, rng)):
            done[when] += 1
        assert ended(child(searching(folder, settings=kind.settings))) == 0
        require_same(folder, whole)
    told = ", ".join(f"{times} {when}" for when, times in sorted(done.items()))
    happens = f"the same command continues and ends with the same files, but for times: {kind.left}, to the bit"
    return Fault(f"`kill -9` of {kind.name}", f"{kills} kills of {searches} searches: {told}", happens)


def saving(root: Path, kind: Kind) -> float:
    """The share of the time of an undisturbed search that goes into its log and its snapshots."""
    spent = root / "spent.json"

    def watched() -> None:
        seconds: list[float] = []
        for owner, name in ((Journal, "add"), (Snapshot, "save")):
            setattr(owner, name, timed(getattr(owner, name), seconds))
        start = time.perf_counter()
        rlprune.search(**SETTINGS, **kind.settings, out=root / f"watched-{kind.settings['budget']}")
        spent.write_text(json.dumps(sum(seconds) / (time.perf_counter() - start)))

    assert ended(child(watched)) == 0
    return float(json.loads(spent.read_text()))


def timed(function: Callable[..., None], seconds: list[float]) -> Callable[..., None]:
    """The same function, which also tells how long it took."""

    def call(*arguments: Any) -> None:
        start = time.perf_counter()
        function(*arguments)
        seconds.append(time.perf_counter() - start)

    return call


def kill(folder: Path, kind: Kind, seconds: float, rng: np.random.Generator) -> str:
    """Begin or continue a search and kill it; returns at what kind of moment, or nothing where it ended before."""
    when = str(rng.choice(["at a random moment", *kind.points]))
    if when in kind.points:
        provoke, places = kind.points[when]
        place = int(rng.integers(1, places))
        status = ended(child(searching(folder, lambda: provoke(place), kind.settings)))
    else:
        pid = child(searching(folder, settings=kind.settings))
        time.sleep(rng.uniform(0.1, seconds))
        os.kill(pid, signal.SIGKILL)
        status = ended(pid)
    assert status in (0, -signal.SIGKILL), f"killed {when} the search ended with {status}"
    return when if status else ""


def at_replace(place: int, after: bool, name: str = "") -> None:
    """Die when a file of that name, or any, is moved into place for the n-th time."""
    move, left = os.replace, iter(range(place - 1, -1, -1))

    def replace(source: Any, target: Any) -> None:
        last = name in str(target) and next(left) == 0
        if not last or after:
            move(source, target)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]


def within_a_line(place: int) -> None:
    """Die when half of the n-th line of a log is written."""
    write, left = csv.DictWriter.writerow, iter(range(place - 1, -1, -1))

    def writerow(self: Any, row: Any) -> Any:
        if next(left) != 0:
            return write(self, row)
        self.writer.writerow([*list(row.values())[:3], "0."])
        return os.kill(os.getpid(), signal.SIGKILL)

    csv.DictWriter.writerow = writerow  # type: ignore[method-assign]


BEFORE, AFTER = "before a file is moved into place", "after a file is moved into place"
KINDS = (
    Kind(
        "a search",
        STATIC,
        {
            BEFORE: (lambda place: at_replace(place, after=False), 14),
            AFTER: (lambda place: at_replace(place, after=True), 14),
            "within a line of the log": (within_a_line, 40),
        },
        "evaluations, plan, policy, weights",
    ),
    Kind(
        "a search with `--mode runtime`",
        RUNTIME,
        {
            BEFORE: (lambda place: at_replace(place, after=False), 20),
            AFTER: (lambda place: at_replace(place, after=True), 20),
            "between two stages": (lambda place: at_replace(place, after=True, name="stages.pt"), 7),
        },
        "plan, gates, agents' policy, weights, rewards",
    ),
)
"""With what breaks the process for each kind of moment, and how many such moments are tried."""


def full_disk(root: Path, whole: dict[str, str]) -> Fault:
    """No file may grow beyond some kilobytes, more and more of them."""
    folder, said = root / "full", 0

    def limit(size: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    for size in (1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16):
        status = ended(child(searching(folder, lambda size=size: limit(size))))
        assert status in (0, 2), f"a full disk ended the search with {status}"
        said += status == 2
    assert said
    assert ended(child(searching(folder))) == 0
    require_same(folder, whole)
    how = f"a limit on the size of files, six sizes one after the other; {said} times the search met it"
    return Fault("full disk", how, "exit code 2 and which file cannot be written; with room the same command continues")


def read_only(root: Path, whole: dict[str, str]) -> Fault:
    """The folder belongs to somebody else."""
    folder = root / "foreign"
    folder.mkdir(mode=0o555)
    # For the owner of the machine no folder is read-only: it becomes somebody who may look, and no more.
    root.chmod(0o755)
    status = ended(child(searching(folder / "run", lambda: os.geteuid() or os.seteuid(65534))))
    assert status == 2, f"a read-only folder ended the search with {status}"
    return Fault("read-only folder", "a folder of another user", "exit code 2 before any work, and nothing is made")


def second_process(root: Path, whole: dict[str, str]) -> Fault:
    """The same command twice at once, and again after the first one was killed."""
    folder = root / "twice"
    first = child(searching(folder))
    while not (folder / "state" / "owner.json").is_file():
        time.sleep(0.01)
    assert ended(child(searching(folder))) == 2
    os.kill(first, signal.SIGKILL)
    assert ended(first) == -signal.SIGKILL
    assert ended(child(searching(folder))) == 0
    require_same(folder, whole)
    happens = "exit code 2; who works in the folder since when. After a kill the folder is free again"
    return Fault("two processes in one run folder", "the same command twice", happens)


def torn_record(root: Path, whole: dict[str, str]) -> Fault:
    """The last record of the log is cut short, as a crash of the machine leaves it."""
    folder = root / "torn"
    pid = child(searching(folder))
    log = folder / "episodes.csv"
    while not log.is_file() or log.read_bytes().count(b"\n") < 36:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    log.write_bytes(log.read_bytes().rstrip(b"\n")[:-4])
    assert ended(child(searching(folder))) == 0
    require_same(folder, whole)
    return Fault("last record cut short", "the end of `episodes.csv` is cut off", "that evaluation is made again")


def jumping_clock(root: Path, whole: dict[str, str]) -> Fault:
    """The clock is a day early or a day late at every look."""
    folder, look = root / "clock", time.time
    days = np.random.default_rng(0)

    def jump() -> None:
        time.time = lambda: look() + 86400 * days.integers(-1, 2)  # type: ignore[assignment]

    assert ended(child(searching(folder, jump))) == 0
    require_same(folder, whole)
    how = "it is a day early or late, another way at every look"
    return Fault("a clock that jumps", how, "nothing: seconds come from a clock that never goes back")


NET = """
from torch import nn


def make(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.AvgPool2d(8), nn.Conv2d(64, 16, 3), nn.BatchNorm2d(16),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""
"""Little work, and an MB and more an image."""
ROOM = 0.8
"""Of the memory that as many images as usual take at once: enough for half of them, with something to spare."""

M_MMAP_THRESHOLD = -3
"""As malloc.h has it."""
CLOSE = 1e-7
"""Sums over other numbers of images may be taken in another order."""


class Saying(Progress):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def watch_memory() -> Callable[[], int]:
    """From now on the system looks for the most memory of this process; gives what tells how many KiB it grew by."""
    Path("/proc/self/clear_refs").write_text("5")
    before = in_kib("VmRSS")
    return lambda: in_kib("VmHWM") - before


def in_kib(name: str) -> int:
    """What the system knows of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def crowd() -> None:
    """From the first evaluation on there is no memory for as many images as it would run at once."""
    run = Chunks.__call__
    # Whatever is large goes back to the system at once, and cannot serve as a reserve.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)

    def limited(self: Chunks, module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        Chunks.__call__ = run  # type: ignore[method-assign]
        grown = watch_memory()
        module(images[: self.size])
        room = in_kib("VmData") + int(ROOM * grown())
        resource.setrlimit(resource.RLIMIT_DATA, (room << 10, resource.RLIM_INFINITY))
        return run(self, module, images)

    Chunks.__call__ = limited  # type: ignore[method-assign]


def no_memory(root: Path, whole: dict[str, str]) -> Fault:
    """There is no memory for an evaluation of as many images at once as usual."""
    (root / "net.py").write_text(NET)
    settings = {
        "model": f"{root / 'net.py'}:make", "data": "digits", "image_size": 64, "search_images": 260, "device": "cpu",
        "train_epochs": 1, **STATIC, "finetune_epochs": 0,
    }  # fmt: skip
    told = Saying()

    def crowded() -> None:
        crowd()
        rlprune.search(**settings, out=root / "crowded", progress=told)
        assert "no memory for 250 images at once: going on with 125" in told.said, told.said

    def in_halves() -> None:
        begin = Chunks.__init__
        Chunks.__init__ = lambda self, size, *tell: begin(self, size // 2, *tell)  # type: ignore[method-assign]
        rlprune.search(**settings, out=root / "halves")

    for work in (lambda: rlprune.search(**settings, out=root / "roomy"), crowded, in_halves):
        assert ended(child(work)) == 0
    require_same(root / "crowded", fingerprint(root / "halves"))
    plans = [PruningPlan.load(root / name / "plan.json").kept for name in ("crowded", "roomy")]
    assert plans[0] == plans[1]
    few, many = (pd.read_csv(root / name / "episodes.csv") for name in ("crowded", "roomy"))
    assert list(few["counts"]) == list(many["counts"])
    np.testing.assert_allclose(few["loss"], many["loss"], rtol=CLOSE)
    how = f"a limit on the memory of the process, {100 * ROOM:.0f} % of what evaluating 250 images at once takes"
    happens = (
        "a remark, and it goes on with 125 at once: to the bit as if it had begun so; the plans that are evaluated and "
        f"the one that is found are those of a search with enough memory, losses within {CLOSE:g} of its"
    )
    return Fault("out of memory in an evaluation", how, happens)


class Killing(Progress):
    """Kills a process that reads images in the second epoch of a training."""

    def update(self, done: int, **facts: str) -> None:
        if done == IMAGES // BATCH + 1:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)


def dead_reader(root: Path, whole: dict[str, str]) -> Fault:
    """One of the processes that read images is killed in the midst of an epoch."""
    rng = np.random.default_rng(0)
    for part, count in (("train", IMAGES // 2 + 2), ("test", 2)):
        for name in "ab":
            (root / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "photos" / part / name / f"{number}.png")
    settings: dict[str, Any] = {
        "model": "resnet20", "model_args": "width=0.1", "data": f"folder:{root / 'photos'}", "image_size": 72,
        "mean": "0.5,0.5,0.5", "std": "0.3,0.3,0.3", "search_images": 4, "device": "cpu", "epochs": 2,
        "batch_size": BATCH,
    }  # fmt: skip
    killed, undisturbed = root / "killed.safetensors", root / "undisturbed.safetensors"

    def disturbed() -> None:
        rlprune.train(**settings, workers=2, out=killed, progress=Killing())

    assert ended(child(disturbed)) == 2
    epochs = len(torch.load(killed.with_suffix(".state"), weights_only=True)["history"])
    assert (epochs, killed.exists()) == (1, False)
    assert ended(child(lambda: rlprune.train(**settings, out=killed))) == 0
    rlprune.train(**settings, out=undisturbed)
    assert killed.read_bytes() == undisturbed.read_bytes()
    happens = "exit code 2 and a sentence; the same command, with any `--workers`, repeats that epoch alone"
    return Fault("a killed reader of images", "`--workers 2`, `kill -9` of one within an epoch", happens)


OTHERS = (full_disk, read_only, second_process, torn_record, jumping_clock, no_memory, dead_reader)


def table(about: list[str], faults: list[Fault], *after: str) -> str:
    """A part of the page: its heading and a few words, a line for every fault, and what is to be said after them."""
    head = ["fault", "how it is provoked", "what happens"]
    rows = [f"| {' | '.join(row)} |" for row in (head, ["---"] * 3, *faults)]
    below = [line for text in after for line in (text, "")]
    return "\n".join([*about, "", *rows, "", *below, f"*{machine()}, {date.today().isoformat()}*", ""])


def write_part(part: str) -> None:
    """Replace the part of the page that has the same heading, or append a new one."""
    heading = part.partition("\n")[0]
    parts = [old.rstrip("\n") + "\n" for old in re.split(r"(?m)^(?=#)", PAGE.read_text()) if old]
    others = [old.partition("\n")[0] != heading for old in parts]
    place = others.index(False) if False in others else len(parts)
    parts[place : place + 1] = [part]
    PAGE.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
