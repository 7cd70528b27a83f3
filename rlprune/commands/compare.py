"""`rlprune compare`."""

from typing import Any

from rlprune.commands.base import command
from rlprune.config.commands import Compare
from rlprune.pipeline.compare import run_comparison
from rlprune.utils.progress import Progress


@command(Compare)
def compare(given: Compare, progress: Progress) -> dict[str, Any]:
    """Let allocators compete on one evaluator, one budget and one number of evaluations; continues where it ended."""
    return run_comparison(given, progress)
