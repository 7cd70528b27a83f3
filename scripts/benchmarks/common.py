"""What the benchmarks share: running the command line, and keeping figures with the machine and the date."""

import argparse
import csv
import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rlprune.utils.device import machine

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "benchmarks"


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write what a benchmark has measured."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    stamp = {"date": date.today().isoformat(), "machine": machine()}
    (FIGURES / f"{name}.json").write_text(json.dumps(stamp | figures, indent=2) + "\n")


def kept(name: str) -> dict[str, Any]:
    """What a benchmark has written, or nothing."""
    path = FIGURES / f"{name}.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return figures


def keep_cell(name: str, given: argparse.Namespace, images: int, facts: dict[str, Any]) -> None:
    """Add a network under a budget to what a benchmark has measured, in place of what it knew of that, and show it.

    Args:
        name: of the benchmark.
        given: what `plan_arguments` has read.
        images: that were trained on.
        facts: what was measured.
    """

    width = (given.model_args or "").removeprefix("width=")
    place = {"network": f"{given.model} ×{width}" if width else given.model, "budget": float(given.budget)}
    place["images"] = images
    others = [cell for cell in kept(name).get("cells", []) if {key: cell[key] for key in place} != place]
    keep(name, {"cells": sorted([*others, place | facts], key=lambda cell: [cell[key] for key in place])})


def command(*words: str, cache: Path | None = None, cwd: Path | None = None) -> tuple[dict[str, Any], float]:
    """Run rlprune in a process of its own; returns what --json printed, and seconds of the whole process."""
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    start = time.perf_counter()
    full = ["rlprune", *words, "--json"]
    done = subprocess.run(full, env=environment, cwd=cwd, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout), time.perf_counter() - start


def plan_arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser for those that measure plan after plan of one network, in one process or in several."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "checkpoint", "budget"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model-args")
    parser.add_argument("--out", type=Path, required=True, help="csv file that grows plan by plan")
    return parser


def unclaimed(path: Path, names: Iterable[str]) -> Iterator[str]:
    """Those of the works for a file that no other process is at; each is this one's until the next is asked for."""
    folder = path.with_suffix(".locks")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        lock = FileLock(folder / name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield name
        finally:
            lock.release()


def grow(path: Path, row: dict[str, Any]) -> None:
    """One more line of a csv file, with a heading where the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
