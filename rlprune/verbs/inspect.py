"""`rlprune inspect`."""

from pathlib import Path
from typing import Any

from rlprune.budget import Lander, parse_budget
from rlprune.config import Inspect, as_dict, resolve
from rlprune.problem import open_problem
from rlprune.progress import Progress


def inspect(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Groups, what is coupled, each one's share of MACs and parameters, and the smallest feasible budget.

    A group's share is what goes when it alone is cut to its minimum; shares overlap and do not add up to 1.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Inspect`.

    Raises:
        UserError: whatever cannot be used.
    """
    given = resolve(Inspect, settings, config)
    problem = open_problem(as_dict(given), progress or Progress())
    graph, cost = problem.graph, problem.cost
    lander = Lander(cost, parse_budget(None), given.round_to, given.min_channels)
    groups = [
        {
            "group": group.name,
            "channels": group.channels,
            "producers": [layer for layer in group.producers if layer in graph.layers],
            "consumers": list(group.consumers),
            "macs_share": float(share[0]),
            "params_share": float(share[1]),
        }
        for group, share in zip(graph.groups, cost.saved_alone(lander.minimum), strict=True)
    ]
    smallest = cost.ratios(lander.minimum)
    return {
        "model": given.model,
        "image_size": problem.data.image_size,
        "macs": int(cost.dense[0]),
        "params": int(cost.dense[1]),
        "groups": groups,
        "refused": graph.refused,
        "smallest_macs": float(smallest[0]),
        "smallest_params": float(smallest[1]),
    }
