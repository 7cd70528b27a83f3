"""The old name of `rlprune.tracing.build`, for one more version."""

import warnings

from rlprune.tracing.build import build_graph as build_graph

warnings.warn("rlprune.trace is now rlprune.tracing.build", DeprecationWarning, stacklevel=2)
