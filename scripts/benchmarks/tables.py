"""Render what all benchmarks have stored: docs/benchmarks.md, and the output of the main job in the README.

python scripts/benchmarks/tables.py
"""

from collections.abc import Callable
from typing import Any

from common import ROOT, kept
from equal import equal_table
from evaluation import evaluation_table
from headline import cifar_table, digits_table
from latency import latency_table
from methods import methods_table
from proxies import proxies_table
from range import range_table
from recovered import readme_table, recovered_table
from repairs import repairs_table
from replay import replay_table
from runtime import runtime_table
from search import search_table
from structure import structure_table
from tuned import tuned_table
from tuning import tuning_table

OUTPUT = ("<!-- output: written by scripts/benchmarks/tables.py -->", "<!-- end of output -->")
RECOVERED = ("<!-- recovered: written by scripts/benchmarks/tables.py -->", "<!-- end of recovered -->")
TABLES = ("<!-- benchmarks: written by scripts/benchmarks/tables.py -->", "<!-- end of benchmarks -->")
PARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "digits": digits_table,
    "cifar": cifar_table,
    "recovered": recovered_table,
    "methods": methods_table,
    "search": search_table,
    "tuned": tuned_table,
    "proxies": proxies_table,
    "repairs": repairs_table,
    "range": range_table,
    "replay": replay_table,
    "runtime": runtime_table,
    "latency": latency_table,
    "equal": equal_table,
    "evaluation": evaluation_table,
    "tuning": tuning_table,
    "structure": structure_table,
}


def main() -> None:
    """Render everything that was measured, each table with its machine and its date."""
    parts = [
        f"{render(figures)}\n\n*{figures['machine']}, {figures['date']}*"
        for name, render in PARTS.items()
        if (figures := kept(name))
    ]
    page, readme = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
    page.write_text(between(page.read_text(), TABLES, "\n\n".join(parts)))
    if figures := kept("recovered"):
        stamp = f"*{figures['machine']}, {figures['date']}*"
        readme.write_text(between(readme.read_text(), RECOVERED, f"\n{readme_table(figures)}\n\n{stamp}\n"))
    if figures := kept("digits"):
        lines = "\n".join(line.rstrip() for line in figures["shown"].rstrip().splitlines())
        readme.write_text(between(readme.read_text(), OUTPUT, f"```text\n{lines}\n```"))


def between(text: str, marks: tuple[str, str], new: str) -> str:
    """A text with what stands between two marks replaced."""
    before, rest = text.split(marks[0])
    return f"{before}{marks[0]}\n{new}\n{marks[1]}{rest.split(marks[1])[1]}"


if __name__ == "__main__":
    main()
