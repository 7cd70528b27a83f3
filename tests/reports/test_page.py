"""The page as a parser and as a browser meet it."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from samples import write_run

from rlprune.errors import UserError
from rlprune.reports.page import write_page, write_run_page
from rlprune.reports.records import read_records
from rlprune.reports.vega import DARK, LIGHT

EVIL = '</script><script>document.title="evil"</script><!--<img/src=x>'
CHARTS = ["kept-channels", "kept-macs", "search", "front", "reactions", "finetune"]
VOID = {"meta", "br", "img", "link", "input", "hr"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")


class Page(HTMLParser):
    """Tags, attributes and texts as a browser would meet them; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data.replace("\u00a0", " ")

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(*folders: Path) -> Page:
    path = folders[0] / "report.html"
    write_page(read_records(folders), path)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run whose files hold what could be mistaken for markup."""
    folder = write_run(tmp_path / "run")
    text = (folder / "ratios.csv").read_text().replace("layer1.conv", f'"{EVIL}"'.replace('="evil"', "=1"))
    (folder / "ratios.csv").write_text(text)
    (folder / "command.txt").write_text(f"rlprune search --model '{EVIL}'\n")
    return folder


def test_the_page_says_what_came_out_and_shows_everything(folder: Path) -> None:
    there = page(folder)
    for words in (
        "vgg16 on cifar10: keep ≤ 30 % of the MACs (remove ≥ 70 %)",
        "83.12 % → 79.84 %",
        "one-shot before fine-tuning 38.20 %",
        "19.7 M → 5.90 M",
        "kept 30.0 %, removed 70.0 %; params 923 k → 114 k",
        "Before and after",
        "What the policy reacted to",
        "Ratios",
        "Configuration",
        "2.9.0",
        f"rlprune search --model '{EVIL}'",
    ):
        assert words in there.text
    assert [box["data-chart"] for box in there.named("div") if "data-chart" in box] == CHARTS


def test_what_the_files_say_is_text_never_markup(folder: Path) -> None:
    there = page(folder)
    assert "img" not in {name for name, _ in there.tags}
    assert len(there.named("script")) == 3
    assert EVIL in there.text


def test_nothing_is_loaded_from_elsewhere(folder: Path) -> None:
    there = page(folder)
    assert not {"link", "iframe", "object", "image", "img"} & {name for name, _ in there.tags}
    assert not any({"src", "href", "action", "srcset"} & set(attributes) for _, attributes in there.tags)
    policy = next(meta["content"] for meta in there.named("meta") if "http-equiv" in meta)
    assert str(policy).startswith("default-src 'none'; ")
    assert "http" not in str(policy)
    text = (folder / "report.html").read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_is_accessible_and_knows_dark_phones_and_paper(folder: Path) -> None:
    there = page(folder)
    assert there.named("html")[0]["lang"] == "en"
    assert "width=device-width" in str(there.named("meta"))
    assert len(there.named("h1")) == len(there.named("title")) == 1
    for box in there.named("div"):
        if "data-chart" in box or box.get("class") == "scroll":
            assert box["tabindex"] == "0"
            assert box.get("aria-label") or box.get("aria-labelledby")
    ids = [str(attributes["id"]) for _, attributes in there.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(attributes["aria-labelledby"]) for _, attributes in there.tags if "aria-labelledby" in attributes} <= {
        *ids
    }
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "@media screen and (prefers-color-scheme: dark)" in text
    assert "@media print" in text


def test_every_colour_that_the_page_uses_is_defined_light_and_dark(folder: Path) -> None:
    page(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    used = set(
        re.findall(r"var\(--([\w-]+)\)", text[: text.index("</style>")] + text[text.index("application/json") :])
    )
    assert used <= set(LIGHT)
    for name in LIGHT:
        assert text.count(f"--{name}: {LIGHT[name]};") + text.count(f"--{name}: {DARK[name]};") == 2


@pytest.mark.parametrize(
    "absent",
    ["result.json", "ratios.csv", "episodes.csv", "reactions.csv", "finetune.csv", "environment.json", "command.txt"],
)
def test_any_file_may_be_missing(folder: Path, absent: str) -> None:
    (folder / absent).unlink()
    drawn = {box["data-chart"] for box in page(folder).named("div") if "data-chart" in box}
    without = {
        "ratios.csv": {"kept-channels", "kept-macs"},
        "episodes.csv": {"search", "front"},
        "reactions.csv": {"reactions"},
        "finetune.csv": {"finetune"},
    }
    assert drawn == set(CHARTS) - without.get(absent, set())


def test_a_run_that_has_only_begun_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "young", probes=4, plans=0)
    for name in ("result.json", "ratios.csv", "reactions.csv", "finetune.csv"):
        (folder / name).unlink()
    there = page(folder)
    assert "young" in there.text
    assert "not finished" in there.text
    assert [box["data-chart"] for box in there.named("div") if "data-chart" in box] == ["front"]


def test_several_runs_share_a_page(tmp_path: Path) -> None:
    there = page(*(write_run(tmp_path / f"run{seed}", seed=seed) for seed in range(3)))
    assert "3 runs side by side" in there.text
    assert "Command of run2" in there.text
    assert [box["data-chart"] for box in there.named("div") if "data-chart" in box] == CHARTS


def test_the_page_is_the_same_twice_and_alone_in_being_written(folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    write_run_page(folder)
    first = (folder / "report.html").read_bytes()
    write_run_page(folder)
    assert (folder / "report.html").read_bytes() == first
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}


def test_a_page_that_cannot_be_written_is_the_users_error(folder: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write_page(read_records([folder]), folder / "result.json" / "report.html")


def test_a_page_of_a_thousand_evaluations_is_small(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", groups=60, probes=241, plans=759)
    write_run_page(folder)
    assert (folder / "report.html").stat().st_size <= 1_500_000


def seen(path: Path, *flags: str) -> tuple[str, str]:
    """The page after its scripts have run, and what stands in the browser's console."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--enable-logging=stderr", "--window-size=1280,900", *flags]
    ended = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    return ended.stdout, "\n".join(line for line in ended.stderr.splitlines() if "CONSOLE" in line)


@browser
@pytest.mark.parametrize("number", [1, 3])
def test_a_browser_draws_every_chart_and_complains_about_nothing(tmp_path: Path, number: int) -> None:
    folders = [write_run(tmp_path / f"run{seed}", seed=seed, groups=4) for seed in range(number)]
    page(*folders)
    dom, console = seen(folders[0] / "report.html")
    assert console == ""
    drawn = dict(re.findall(r'data-chart="([\w-]+)".*?(<svg.*?</svg>)', dom, flags=re.DOTALL))
    assert list(drawn) == CHARTS
    marks = {name: svg.count('role="graphics-symbol" aria-roledescription="') for name, svg in drawn.items()}
    words = {name: re.findall(r'<path aria-label="([^"]+)"', svg) for name, svg in drawn.items()}
    assert marks["kept-channels"] >= len(words["kept-channels"]) == 4 * number
    assert len(words["search"]) == 8 * number
    assert len(words["front"]) == 12 * number + number
    assert len(words["finetune"]) == 3 * number
    # The colours are still the page's, so that they follow its scheme.
    assert 'fill="var(--' in drawn["search"]
    # As wide as the column, and not as Vega's default.
    widths = [float(re.search(r' width="([\d.]+)"', svg)[1]) for svg in drawn.values()]  # type: ignore[index]
    assert min(widths) > 400
    assert max(widths) - min(widths) < 2


@browser
@pytest.mark.parametrize("there", ["episodes.csv", "ratios.csv", "reactions.csv"])
def test_a_browser_draws_what_there_is_of_an_unfinished_run(tmp_path: Path, there: str) -> None:
    folder = write_run(tmp_path / "run")
    for name in {"episodes.csv", "ratios.csv", "reactions.csv", "finetune.csv", "result.json"} - {there}:
        (folder / name).unlink()
    page(folder)
    dom, console = seen(folder / "report.html")
    assert console == ""
    body = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert body.count("<svg") == body.count("data-chart=") > 0


@browser
def test_evil_names_stay_names_in_a_browser(folder: Path) -> None:
    page(folder)
    dom, console = seen(folder / "report.html")
    assert console == ""
    assert "<title>vgg16 on cifar10" in dom
    body = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<img" not in body
    assert html.escape(EVIL, quote=False) in body


@browser
def test_the_arrow_keys_tell_every_mark(tmp_path: Path) -> None:
    """One more script presses keys and writes down what the page says."""
    folder = write_run(tmp_path / "run", groups=3)
    page(folder)
    press = """
    const chart = document.querySelector("[data-chart=kept-channels]"), told = [];
    function key(name) {
      chart.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
      told.push(tip.hidden ? "" : tip.textContent);
    }
    setTimeout(() => {
      for (const name of ["ArrowRight", "ArrowDown", "End", "ArrowRight", "Home", "Escape", "ArrowLeft"]) key(name);
      document.body.dataset.told = JSON.stringify(told);
    }, 2000);
    """
    path = folder / "report.html"
    before, _, after = path.read_text().rpartition("</body>")
    path.write_text(f"{before}<script>{press}</script></body>{after}")
    dom, console = seen(path)
    assert console == ""
    told = json.loads(html.unescape(re.search(r'data-told="([^"]*)"', dom)[1]))  # type: ignore[index]
    assert [words.partition(":")[0] for words in told] == [
        "layer0.conv", "layer1.conv", "layer2.conv", "layer2.conv", "layer0.conv", "", "layer2.conv",
    ]  # fmt: skip
