"""rlprune: a reinforcement-learning agent decides how much of every layer of a network to keep."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# In a source checkout `envs/` and `agents/` stand beside this folder; installed, they are inside it.
_checkout = _Path(__file__).parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "envs" / "walk.py").is_file():
    __path__.append(str(_checkout))

from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from rlprune.api import bench, compare, eval, export, finetune, inspect, prune, replay, report, search, train
    from rlprune.pretrained import from_pretrained, save_pretrained
    from rlprune.pruner import load

__all__ = [
    "bench", "compare", "eval", "export", "finetune", "from_pretrained", "inspect", "load", "prune", "replay", "report",
    "save_pretrained", "search", "train",
]  # fmt: skip
_HOMES = {"load": "pruner", "from_pretrained": "pretrained", "save_pretrained": "pretrained"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `rlprune --help` must not wait for torch.
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'rlprune' has no attribute '{name}'")
    return getattr(import_module(f"rlprune.{_HOMES.get(name, 'api')}"), name)
