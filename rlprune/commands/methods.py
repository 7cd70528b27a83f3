"""`rlprune methods`."""

from typing import Any

from rlprune import registry
from rlprune.commands.base import command
from rlprune.config.commands import Methods
from rlprune.utils.progress import Progress


@command(Methods)
def methods(given: Methods, progress: Progress) -> dict[str, Any]:
    """Every method that can be named: its kind, settings, what it needs, its paper, one sentence and an example."""
    kinds = registry.KINDS if given.kind is None else (given.kind,)
    return {"methods": [row for kind in kinds for row in registry.describe(kind)]}
