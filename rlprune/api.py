"""The verbs of the command line as Python functions, with the same names and defaults.

Every function takes the settings of its verb as keywords (see `rlprune.settings`), a YAML file of settings below them,
and somebody to tell how far it is; every one returns what ``--json`` prints.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprune.verbs.bench import bench
    from rlprune.verbs.compare import compare
    from rlprune.verbs.eval import eval
    from rlprune.verbs.export import export
    from rlprune.verbs.finetune import finetune
    from rlprune.verbs.inspect import inspect
    from rlprune.verbs.prune import prune
    from rlprune.verbs.replay import replay
    from rlprune.verbs.report import report
    from rlprune.verbs.search import search
    from rlprune.verbs.train import train

__all__ = ["bench", "compare", "eval", "export", "finetune", "inspect", "prune", "replay", "report", "search", "train"]


def __getattr__(name: str) -> Any:
    # A verb brings its libraries when it is asked for: to export a table nobody should wait for an agent.
    if name not in __all__:
        raise AttributeError(f"module 'rlprune.api' has no attribute '{name}'")
    return getattr(import_module(f"rlprune.verbs.{name}"), name)
