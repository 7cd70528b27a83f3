"""`rlprune replay`."""

from typing import Any

from rlprune.commands.base import command
from rlprune.config.commands import Replay
from rlprune.pipeline.replay import run_replay
from rlprune.utils.progress import Progress


@command(Replay)
def replay(given: Replay, progress: Progress) -> dict[str, Any]:
    """Walk a policy on another checkpoint, budget, data set or network: no search, and no evaluation unless allowed.

    Sensitivities come from the network that the policy was trained on. Where evaluations are allowed they measure the
    policy's plan, the sensitivity rule's and plans around the better one. What the run itself has measured on the same
    network and images costs nothing.
    """
    return run_replay(given, progress)
