"""What an agent decides in the networks that are there."""

from collections.abc import Iterable

from rlprune.cost.exact import Cost
from rlprune.envs.decisions.base import Decision, make_decisions
from rlprune.utils.progress import Progress


def decisions_for(names: Iterable[str], costs: Iterable[Cost], progress: Progress | None) -> tuple[Decision, ...]:
    """The decisions with these names that some network has anything for.

    Args:
        names: of decisions.
        costs: of the networks.
        progress: told of those that are left out; None where nobody has asked for them.
    """
    found, costs = [], list(costs)
    for name in names:
        (decision,) = make_decisions([name])
        if any(decision.steps(cost) for cost in costs):
            found.append(name)
        elif progress is not None:
            progress.note(f"--decide {name}: the network has no {name} to decide on, the agent goes on without")
    return make_decisions(found)
