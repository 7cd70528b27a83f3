"""`rlprune search`."""

from typing import Any

from rlprune.commands.base import command
from rlprune.config.commands import Search
from rlprune.pipeline.search import run_search
from rlprune.utils.progress import Progress


@command(Search)
def search(given: Search, progress: Progress) -> dict[str, Any]:
    """Search ratios with an agent, prune for real, fine-tune; continues an unfinished run of the same settings."""
    return run_search(given, progress)
