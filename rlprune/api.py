"""The commands as Python functions, with the same names and defaults, and `make_env`, which is none of them.

Every function takes the settings of its command as keywords (see `rlprune.config.commands`), a YAML file of settings
below them, and somebody to tell how far it is; every command returns what ``--json`` prints.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprune.commands.bench import bench
    from rlprune.commands.compare import compare
    from rlprune.commands.eval import eval
    from rlprune.commands.export import export
    from rlprune.commands.finetune import finetune
    from rlprune.commands.inspect import inspect
    from rlprune.commands.make_env import make_env
    from rlprune.commands.methods import methods
    from rlprune.commands.prune import prune
    from rlprune.commands.replay import replay
    from rlprune.commands.report import report
    from rlprune.commands.search import search
    from rlprune.commands.train import train

__all__ = [
    "bench", "compare", "eval", "export", "finetune", "inspect", "make_env", "methods", "prune", "replay", "report",
    "search", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # A command brings its libraries when it is asked for: to export a table nobody should wait for an agent.
    if name not in __all__:
        raise AttributeError(f"module 'rlprune.api' has no attribute '{name}'")
    return getattr(import_module(f"rlprune.commands.{name}"), name)
