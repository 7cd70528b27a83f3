"""The old name of `rlprune.graph.surgery` and `rlprune.artifacts.pruned`, for one more version."""

import warnings

from rlprune.artifacts.pruned import load as load
from rlprune.graph.surgery import prune as prune

warnings.warn("rlprune.pruner is now rlprune.graph.surgery, and for load rlprune", DeprecationWarning, stacklevel=2)
