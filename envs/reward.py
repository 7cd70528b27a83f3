"""What the agent is paid for."""

import numpy as np

from rlprune.cost.exact import RESOURCES
from rlprune.errors import UserError, unknown


def parse_reward(text: str) -> tuple[np.ndarray, bool]:
    """Read a reward.

    Args:
        text: ``"loss"`` for minus the loss under a hard budget, or ``"balance:macs=A,params=B"`` for minus the loss
            minus A times the kept fraction of the MACs minus B times that of the parameters.

    Returns:
        (2,) weights of MACs and parameters, and whether the agent itself balances.

    Raises:
        UserError: another name, an unknown resource, or a weight that is not a number of at least 0.
    """
    kind, _, rest = text.partition(":")
    weights = np.zeros(len(RESOURCES))
    if kind == "loss" and not rest:
        return weights, False
    if kind != "balance":
        raise unknown("reward", text, ("loss", "balance:macs=A,params=B"))
    for part in filter(None, rest.split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in RESOURCES:
            raise unknown("resource of the reward", name.strip(), RESOURCES)
        try:
            weights[RESOURCES.index(name.strip())] = float(value)
        except ValueError:
            raise UserError(f"reward '{text}': '{value}' is not a number") from None
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise UserError(
            f"reward '{text}': expected weights of at least 0, one of them above, as in balance:macs=1,params=0.5"
        )
    return weights, True
