"""What the site fills in while it is built: help and signatures of the commands, and the tables of all methods."""

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

from click.testing import CliRunner

from rlprune import api, registry
from rlprune.cli.main import main
from rlprune.config.commands import COMMANDS

WIDTH = 100
KIND_TITLES = {"criterion": "Criteria", "allocator": "Allocators", "agent": "Agents", "recovery": "Repairs"}
KIND_OPTIONS = {"criterion": "--criterion", "allocator": "--methods", "agent": "--agent", "recovery": "--repair"}
LIST_ITEM = re.compile(r"([-*]|\d+\.) ")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    for name, render in GENERATED.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin in markdown:
            before, rest = markdown.split(begin)
            markdown = f"{before}{render()}{rest.split(end)[1]}"
    return separate_lists(markdown)


def separate_lists(markdown: str) -> str:
    """A blank line before every list: GitHub starts a list without one, Python-Markdown does not."""
    lines: list[str] = []
    fenced = inside = False
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        item = not fenced and LIST_ITEM.match(line) is not None
        if item and not inside and lines and lines[-1].strip():
            lines.append("")
        # A list goes on as long as its lines are indented or items themselves.
        inside = item or (inside and bool(line) and (fenced or line.startswith(" ")))
        lines.append(line)
    return "\n".join(lines)


def command_help() -> str:
    """Every command with what it prints for ``--help``."""
    parts = []
    for name in COMMANDS:
        shown = CliRunner().invoke(main, [name, "--help"], terminal_width=WIDTH, catch_exceptions=False, color=False)
        text = shown.output.replace("Usage: main ", "Usage: rlprune ").rstrip()
        parts.append(f"## {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def functions() -> str:
    """Every command as a Python function: signature, what it does, its settings."""
    return "\n\n".join(_function(name) for name in COMMANDS)


def _function(name: str) -> str:
    function = getattr(api, name)
    about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0].partition("\nArgs:")[0].strip()
    settings = {entry.name: entry for entry in fields(COMMANDS[name])}
    rows = [
        f"| `{key}` | {_cell(_default(entry))} | {_cell(entry.metadata['help'])} |" for key, entry in settings.items()
    ]
    where = "rlprune.api" if name == "methods" else "rlprune"
    signature = f"{where}.{name}(*, config=None, progress=None, **settings) -> dict[str, Any]"
    table = "| setting | default | |\n|---|---|---|\n" + "\n".join(rows)
    return f"### {where}.{name} {{ #{name} }}\n\n```python\n{signature}\n```\n\n{about}\n\n{table}"


def _default(entry: Field[Any]) -> str:
    if entry.default is MISSING:
        return "required"
    return entry.metadata["unset"] or "none" if entry.default is None else f"`{entry.default!r}`"


def method_tables() -> str:
    """All methods, one table a kind."""
    return "\n\n".join(_method_table(kind) for kind in registry.KINDS)


def _method_table(kind: str) -> str:
    rows = ["| " + " | ".join(_cell(text) for text in _row(method)) + " |" for method in registry.describe(kind)]
    title = KIND_TITLES.get(kind, kind.capitalize())
    option = f"Chosen by `{KIND_OPTIONS[kind]}`.\n\n" if kind in KIND_OPTIONS else ""
    head = "| name | what it does | settings and defaults | needs | paper |\n|---|---|---|---|---|"
    return f"## {title}\n\n{option}{head}\n" + "\n".join(rows)


def _row(method: dict[str, str]) -> list[str]:
    settings = "<br>".join(f"`{part}`" for part in method["settings"].split(",") if part)
    return [f"`{method['name']}`", method["summary"], settings, method["needs"], method["paper"]]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


GENERATED: dict[str, Callable[[], str]] = {
    "commands": command_help,
    "functions": functions,
    "methods": method_tables,
}
