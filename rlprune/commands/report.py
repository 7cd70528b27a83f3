"""`rlprune report`."""

from pathlib import Path
from typing import Any

from rlprune.commands.base import command
from rlprune.config.commands import Report
from rlprune.errors import UserError
from rlprune.reports.page import write_page
from rlprune.reports.records import read_records
from rlprune.reports.vega import MOST_RUNS
from rlprune.runs.folder import parts_of
from rlprune.utils.files import check_writable
from rlprune.utils.progress import Progress


@command(Report)
def report(given: Report, progress: Progress) -> dict[str, Any]:
    """Write the page of a run, or of several side by side: one file that needs no other and no network.

    Returns:
        The `page`, and the folder of the `figures` or None.
    """
    runs = [part for run in given.runs for part in parts_of(run)]
    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs are too many for one page: no more than {MOST_RUNS} colours differ")
    records = read_records(runs)
    page = given.out or (given.runs[0] if len(given.runs) == 1 else Path()) / "report.html"
    if page.is_dir():
        raise UserError(f"--out {page} is a folder: name a file such as {page / 'report.html'}")
    figures = page.parent / "figures" if given.figures else None
    check_writable(page.parent)
    if figures and figures.exists() and not figures.is_dir():
        raise UserError(f"{figures} is a file where the folder of the figures would be: choose another --out")
    write_page(records, page, figures)
    return {"page": str(page), "figures": str(figures) if figures else None}
