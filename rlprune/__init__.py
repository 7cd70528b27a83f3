"""rlprune: a reinforcement-learning agent decides how much of every layer of a network to keep."""

from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

from rlprune._version import __version__ as __version__

# In a source checkout `envs/` and `agents/` stand beside this folder; installed, they are inside it.
_checkout = _Path(__file__).parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "envs" / "episode.py").is_file():
    __path__.append(str(_checkout))

from rlprune.envs.registration import register as _register  # noqa: E402  (found only now)

if TYPE_CHECKING:
    from rlprune.api import (
        bench,
        compare,
        eval,
        export,
        finetune,
        inspect,
        make_env,
        prune,
        replay,
        report,
        search,
        train,
    )
    from rlprune.artifacts.pretrained import from_pretrained, save_pretrained
    from rlprune.artifacts.pruned import load

__all__ = [
    "bench", "compare", "eval", "export", "finetune", "from_pretrained", "inspect", "load", "make_env", "prune",
    "replay", "report", "save_pretrained", "search", "train",
]  # fmt: skip
_ELSEWHERE = {"load": "pruned", "from_pretrained": "pretrained", "save_pretrained": "pretrained"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `rlprune --help` must not wait for torch.
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'rlprune' has no attribute '{name}'")
    module = f"rlprune.artifacts.{_ELSEWHERE[name]}" if name in _ELSEWHERE else "rlprune.api"
    return getattr(import_module(module), name)


_register()
