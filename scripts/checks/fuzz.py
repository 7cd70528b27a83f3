"""Feed damaged files to every reader: nothing but an error for people may come of it, quickly and in little memory.

    python scripts/checks/fuzz.py --inputs 100000        # the long form; without a GPU and a network
    python scripts/checks/fuzz.py --inputs 500 --seed 1
    pip install atheris && python scripts/checks/fuzz.py --inputs 100000 --guided

Searches make valid files first. Every input is one of them with bytes flipped, cut, doubled or inserted, or, where it
holds JSON, YAML or a table, with a value, a name or a cell that does not belong there. With `--guided` libFuzzer
chooses the inputs by the lines of rlprune that they reach. From 10,000 inputs on their number is written to
docs/reliability.md.
"""

import argparse
import copy
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
import yaml
from faults import watch_memory, write_part

import rlprune
import rlprune.agents.search.rounds as agent
from rlprune.agents.policy import load_policy
from rlprune.artifacts.pruned import load
from rlprune.config.commands import Search
from rlprune.config.resolve import resolve
from rlprune.errors import UserError
from rlprune.models.checkpoint import load_checkpoint, read_weights
from rlprune.models.registry import rebuild_model
from rlprune.pipeline.gated_search import METHOD_FORMAT
from rlprune.plans.plan import PruningPlan
from rlprune.plans.ratio_table import ratios_for, read_ratios
from rlprune.reports.records import read_records
from rlprune.runs.folder import RunFolder, read_result
from rlprune.utils.device import machine
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload

Read = Callable[[Path], object]
ODD = (
    None, True, -1, 0, 1, 3.5, 10**6, 10**9, 1e308, float("nan"), float("inf"), 2**63, "", "0", "ü\u0000", [], {}, [[]],
    {"a": 1},
)  # fmt: skip
WRITES = 10_000
"""Inputs from which on the page tells of them."""
ABOUT = [
    "## Damaged files",
    "",
    "`python scripts/checks/fuzz.py` feeds damaged files to every reader; only an error for people may come of one.",
    "With `--guided` (needs `pip install atheris`) libFuzzer chooses them by the lines of rlprune that they reach.",
    "",
]
SLOW = 10.0
"""Seconds that no reader may take for a small file."""
SPARE = 32 << 20
"""Bytes that a reader may take besides twice the size of its file: for the network that the file belongs to."""


def main() -> None:
    """Make valid files, then damaged ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="by what inputs reach; needs atheris")
    given = parser.parse_args()
    torch.set_num_threads(1)
    agent.WALKS, agent.ROLLOUTS = 32, 1
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        readers = readers_of(run, make_valid(run))
        if given.guided:
            runs, each = given.inputs // len(readers), enumerate(readers)
            escaped = [name for number, (name, read) in each if guided(run, number, name, read, runs, given.seed)]
            print(f"{runs} guided inputs for each of {len(readers)} readers: {len(escaped)} escaped")
            sys.exit(f"look above for {escaped}" if escaped else 0)
        escapes, seconds, memory = feed(run, readers, given.inputs, random.Random(given.seed))
    told = (
        f"{given.inputs:,} damaged files for {len(readers)} readers: {escapes} escaped; none took more than "
        f"{seconds:.2f} s, nor more memory than twice its file and {memory / 2**20:.1f} MiB"
    )
    print(told)
    failed = escapes or seconds > SLOW or memory > SPARE
    if given.inputs >= WRITES and not failed:
        write_part("\n".join([*ABOUT, f"{told}.", "", f"*{machine()}, {date.today().isoformat()}*", ""]))
    sys.exit(1 if failed else 0)


def make_valid(run: Path) -> Workload:
    """Make a run folder with all kinds of files, that of a runtime search in it; returns what it is about."""
    settings = {"model": "resnet20", "model_args": "width=0.25", "data": "digits", "budget": 0.4, "device": "cpu"}
    rlprune.search(**settings, evaluations=40, train_epochs=1, finetune_epochs=1, out=run)
    gates = {"mode": "runtime", "budget": 0.6, "search_images": 1000, "rounds": 1, "rollouts": 1}
    rlprune.search(**settings | gates, train_epochs=1, finetune_epochs=0, out=run / "gated")
    torch.save(rlprune.load(run).state_dict(), run / "weights.pt")
    return open_workload(settings, Progress())


def feed(run: Path, readers: list[tuple[str, Read]], inputs: int, rng: random.Random) -> tuple[int, float, int]:
    """Feed damaged files to all readers in turn.

    Returns:
        How many escaped, the most seconds that one took, and the most bytes besides twice the size of its file.
    """
    escapes, seconds, most = 0, 0.0, 0
    for name, read in readers:
        # What is imported at first use is no file's doing.
        with suppress(UserError):
            read(run / name)
    for number in range(inputs):
        name, read = readers[number % len(readers)]
        start, grown = time.perf_counter(), watch_memory()
        escapes += survived(run / name, read, rng)
        seconds = max(seconds, time.perf_counter() - start)
        most = max(most, 1024 * grown() - 2 * (run / name).stat().st_size)
        if sys.stderr.isatty() and number % 100 == 0:
            print(f"\r{number} of {inputs}", end="", file=sys.stderr)
    return escapes, seconds, most


def readers_of(run: Path, workload: Workload) -> list[tuple[str, Read]]:
    """Every file that a person may hand over, and what reads it."""
    module = rebuild_model(workload.network)
    same = RunFolder.check
    config = resolve(Search, {}, run / "config.yaml")
    return [
        ("plan.json", lambda path: PruningPlan.load(path).table()),
        ("plan.json", lambda path: PruningPlan.load(path).mask(workload.graph)),
        ("policy/policy.json", lambda path: load_policy(path.parent)),
        ("policy/policy.safetensors", lambda path: load_policy(path.parent)),
        ("ratios.csv", lambda path: ratios_for(workload.graph, read_ratios(path), path)),
        ("config.yaml", lambda path: resolve(Search, {}, path)),
        ("pruned/model.safetensors", lambda path: load(path.parent)),
        ("pruned/plan.json", lambda path: load(path.parent)),
        ("pruned/model.safetensors", lambda path: load_checkpoint(module, path)),
        ("weights.pt", read_weights),
        ("gated/pruned/gates.json", lambda path: load(path.parent)),
        ("gated/pruned/plan.json", lambda path: load(path.parent)),
        ("gated/pruned/model.safetensors", lambda path: load(path.parent)),
        ("gated/state/method.json", METHOD_FORMAT.read),
        ("result.json", lambda path: read_result(path.parent)),
        ("gated/agents.csv", lambda path: read_records([path.parent])),
        ("state/run.json", lambda path: same(path.parents[1], config)),
        ("episodes.csv", lambda path: read_records([path.parent])),
        ("episodes.csv", lambda path: RunFolder(path.parent, config).episodes.known()),
        ("reactions.csv", lambda path: read_records([path.parent])),
    ]


def guided(run: Path, number: int, name: str, read: Read, runs: int, seed: int) -> bool:
    """Whether something else than an error for people came of one of the inputs that libFuzzer makes of a valid file.

    It ends its process, and has one of its own.
    """
    import atheris

    path, corpus = run / name, run.parent / f"corpus-{number}"
    whole = path.read_bytes()
    corpus.mkdir()
    (corpus / "valid").write_bytes(whole)

    def once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except UserError:
            pass
        except Exception:
            print(f"\n{name}, {data[:300]!r}", file=sys.stderr)
            traceback.print_exc()
            # At once, for on its usual way out a copy of this process removes its temporary folder.
            os._exit(1)

    pid = os.fork()
    if not pid:
        for function in functions_of("rlprune"):
            atheris.instrument_func(function)
        options = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={2 * len(whole)}", f"-timeout={SLOW:.0f}"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", "-verbosity=0", str(corpus)], once)
        atheris.Fuzz()
    failed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    path.write_bytes(whole)
    return failed


def functions_of(package: str) -> list[FunctionType]:
    """Every function and method in the modules of a package that are loaded."""
    found: dict[int, FunctionType] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package:
            places = [vars(module), *(vars(kind) for kind in vars(module).values() if isinstance(kind, type))]
            for each in (value for place in places for value in place.values()):
                function = getattr(each, "__func__", each)
                if isinstance(function, FunctionType) and function.__module__.partition(".")[0] == package:
                    found[id(function)] = function
    return list(found.values())


def survived(path: Path, read: Read, rng: random.Random) -> bool:
    """Whether something else than an error for people came of a damaged file; the file is mended again."""
    whole = path.read_bytes()
    try:
        path.write_bytes(damaged(whole, path.suffix, rng))
        read(path)
    except UserError:
        pass
    except Exception:
        print(f"\n{path.name}, {path.read_bytes()[:300]!r}", file=sys.stderr)
        traceback.print_exc()
        return True
    finally:
        path.write_bytes(whole)
    return False


def damaged(whole: bytes, suffix: str, rng: random.Random) -> bytes:
    """The file, changed in one to three ways."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.random()
        if suffix in (".json", ".yaml") and kind < 0.6:
            whole = misfit(whole, suffix, rng)
        elif suffix == ".csv" and kind < 0.6:
            whole = odd_cell(whole, rng)
        else:
            whole = bytes_changed(whole, rng)
    return whole


def bytes_changed(whole: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled or inserted; most of it in the head, where formats say what they are."""
    length = len(whole)
    place = rng.randrange(min(length, 400) if rng.random() < 0.6 else length) if length else 0
    some = bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 2, 8))))
    return rng.choice(
        (
            whole[:place],
            whole[:place] + some + whole[place + len(some) :],
            whole[:place] + some + whole[place:],
            whole[:place] + whole[place + rng.randrange(1, 50) :],
            whole[:place] + whole[max(place - 40, 0) :],
            b"",
        )
    )


def misfit(whole: bytes, suffix: str, rng: random.Random) -> bytes:
    """A value or a name that does not belong where it stands."""
    try:
        data = json.loads(whole) if suffix == ".json" else yaml.safe_load(whole)
    except (ValueError, yaml.YAMLError):
        return bytes_changed(whole, rng)
    place: Any = data
    while isinstance(place, (dict, list)) and place:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if rng.random() < 0.4 or not isinstance(place[key], (dict, list)) or not place[key]:
            change(place, key, rng)
            break
        place = place[key]
    return (json.dumps(data) if suffix == ".json" else yaml.safe_dump(data)).encode("utf-8", "replace")


def change(place: Any, key: Any, rng: random.Random) -> None:
    """One entry is replaced, removed, doubled or renamed."""
    kind = rng.random()
    if kind < 0.6:
        place[key] = copy.deepcopy(rng.choice(ODD))
    elif kind < 0.8:
        del place[key]
    elif isinstance(place, list):
        place.append(copy.deepcopy(place[key]))
    else:
        place[f"{key}."] = place.pop(key)


def odd_cell(whole: bytes, rng: random.Random) -> bytes:
    """A cell of a table that does not belong there."""
    lines = whole.decode("utf-8", "replace").splitlines()
    if not lines:
        return whole
    place = rng.randrange(len(lines))
    cells = lines[place].split(",")
    cells[rng.randrange(len(cells))] = str(rng.choice(ODD))
    lines[place] = ",".join(cells)
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


if __name__ == "__main__":
    main()
