"""The verbs of the command line as Python functions, with the same names and defaults.

Every function takes the settings of its verb as keywords (see `rlprune.settings`), a YAML file of settings below them,
and somebody to tell how far it is; every one returns what ``--json`` prints.
"""

from rlprune.verbs.eval import eval
from rlprune.verbs.export import export
from rlprune.verbs.finetune import finetune
from rlprune.verbs.inspect import inspect
from rlprune.verbs.prune import prune
from rlprune.verbs.replay import replay
from rlprune.verbs.search import search
from rlprune.verbs.train import train

__all__ = ["eval", "export", "finetune", "inspect", "prune", "replay", "search", "train"]
