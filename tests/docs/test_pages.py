"""The pages of the documentation work as shown, are all listed, and name what there is."""

import re
import runpy
import shlex
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlprune import registry
from rlprune.config.commands import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
RUN = ["quickstart.md", "environment.md", *(page for page in PAGES if page.startswith("extending/"))]
OPTIONS = {"--criterion": "criterion", "--methods": "allocator", "--agent": "agent", "--repair": "recovery"}
NO_METHODS = {"agent": {"recurrent-ppo"}}
"""Names beside the methods: the agent of `--mode runtime` that remembers."""


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """(first line, code) of every block of a language on a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in found]


def run_page(page: str) -> types.ModuleType:
    """Execute the Python of a page in a module of its own; errors show the line of the page."""
    module = types.ModuleType(f"page_{page.replace('/', '_').removesuffix('.md')}")
    # Frozen dataclasses look their module up.
    sys.modules[module.__name__] = module
    for line, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, DOCS / page, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = run_page(page)
    try:
        for group, name, target in entries(page):
            kind = next(kind for kind, facts in registry.KINDS.items() if facts.group == group)
            offered = EntryPoint(name, f"{module.__name__}:{target.partition(':')[2]}", group)
            with monkeypatch.context() as patch:
                patch.setattr(registry, "_elsewhere", lambda asked, kind=kind, offered=offered: (
                    {offered.name: offered} if asked == kind else {}
                ))  # fmt: skip
                (row,) = [row for row in registry.describe(kind) if row["name"] == name]
                assert row["summary"]
                for named in commands_with(page, name):
                    registry.check(kind, named)
    finally:
        del sys.modules[module.__name__]


def entries(page: str) -> Iterator[tuple[str, str, str]]:
    """(group, name, target) of the entry points that a page shows."""
    for _, code in blocks(page, "toml"):
        group = ""
        for line in code.splitlines():
            if header := re.fullmatch(r'\[project\.entry-points\."(.+)"\]', line):
                group = header.group(1)
            elif entry := re.fullmatch(r'([\w-]+) = "(.+)"', line):
                yield group, entry.group(1), entry.group(2)


def commands_with(page: str, name: str) -> list[str]:
    """How the commands on a page name a method, settings included."""
    return [given for _, given in named_methods(page) if given.partition(":")[0] == name]


def named_methods(page: str) -> Iterator[tuple[str, str]]:
    """(kind, method with its settings) wherever a page gives one to an option."""
    text = (ROOT / page if page == "README.md" else DOCS / page).read_text(encoding="utf-8")
    for option, kind in OPTIONS.items():
        for given in re.findall(rf"{option}[ =]([\w.:=,-]*\w)", text):
            for method in registry.split(shlex.split(given)[0]):
                yield kind, method


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_methods_that_a_page_names_are_known(page: str) -> None:
    mine = {name for _, name, _ in entries(page)} if page != "README.md" else set()
    for kind, method in named_methods(page):
        if method.partition(":")[0] not in mine | NO_METHODS.get(kind, set()):
            registry.check(kind, method)


def test_every_page_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        """MkDocs' file names functions, which nobody needs here."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
    settings: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    assert sorted(listed(settings["nav"])) == PAGES


def listed(part: Any) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(part, str):
        return [part]
    return [page for each in (part.values() if isinstance(part, dict) else part) for page in listed(each)]


def test_links_to_pages_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(DOCS / name for name in PAGES)):
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            target = " ".join(link.split())
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_numbers_of_the_readme_are_those_of_the_benchmarks() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Measured")[1].split("## ")[0]
    benchmarks = (DOCS / "benchmarks.md").read_text(encoding="utf-8").replace("*", "")
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) >= 8
    for method, *cells in rows:
        (line,) = (line for line in benchmarks.splitlines() if line.startswith(f"|{method}|") and "<br>" in line)
        assert [cell for cell in cells if cell.replace("*", "").strip() not in line] == []
    text = " ".join(section.split())
    told = re.search(
        r"have ([\d.]+) ± ([\d.]+) %, those of CMA-ES ([\d.]+) ± ([\d.]+), .* rule ([\d.]+), .* one (\d+\.\d)", text
    )
    repaired = re.search(r"at 30 % from ([\d.]+) to ([\d.]+) % before", text)
    assert told is not None
    assert repaired is not None
    assert [number for number in (*told.groups(), *repaired.groups()) if number not in benchmarks] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.fixture(scope="module")
def hooks() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "hooks.py"))


def test_the_site_lists_every_command_with_its_options(hooks: dict[str, Any]) -> None:
    page = hooks["on_page_markdown"]((DOCS / "commands.md").read_text(encoding="utf-8"))
    titles = re.findall(r"^## (\S+)$", page, re.M)
    assert titles == list(COMMANDS)
    for part in page.split("\n## ")[1:]:
        assert f"Usage: rlprune {part.split()[0]} [OPTIONS]" in part
        assert "Examples:" in part
    assert "filled in when the site is built" not in page


def test_the_site_lists_every_method_and_function(hooks: dict[str, Any]) -> None:
    methods = hooks["on_page_markdown"]((DOCS / "methods.md").read_text(encoding="utf-8"))
    functions = hooks["on_page_markdown"]((DOCS / "api.md").read_text(encoding="utf-8"))
    for kind in registry.KINDS:
        assert all(f"| `{name}` |" in methods for name in registry.names(kind))
    for name in COMMANDS:
        assert f"{name}(*, config=None, progress=None, **settings)" in functions


def test_lists_of_the_site_stand_apart(hooks: dict[str, Any]) -> None:
    text = "Words:\n- one\n  goes on\n- two\n\n```sh\nrun\n- no list\n```\nMore\n1. first\n2. second"
    expected = "Words:\n\n- one\n  goes on\n- two\n\n```sh\nrun\n- no list\n```\nMore\n\n1. first\n2. second"
    assert hooks["separate_lists"](text) == expected
