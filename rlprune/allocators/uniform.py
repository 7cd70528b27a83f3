"""The same keep ratio everywhere: the control that every search must beat."""

import numpy as np

from rlprune.budget import Lander


def uniform(lander: Lander) -> np.ndarray:
    """(groups,) kept counts: the largest plan inside the budget with one keep ratio for all groups."""
    return lander.land(lander.sizes[None].astype(float))[0]
