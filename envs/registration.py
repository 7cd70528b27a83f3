"""Gymnasium finds the environment as soon as both packages are imported, in whichever order.

Gymnasium takes as long to import as everything else that `rlprune --help` needs, and it asks no installed package for
environments. So it is not imported here: where it is not there yet, it is waited for.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ENVIRONMENT_ID = "rlprune/ChannelPruning-v0"
LIST = "gymnasium.envs"
"""The module that registers Gymnasium's own environments; from then on others can be."""


def register() -> None:
    """Add the environment to Gymnasium's, now or when Gymnasium is imported."""
    if LIST in sys.modules:
        _add()
    elif not any(isinstance(finder, _AfterGymnasium) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterGymnasium())


def _add() -> None:
    from gymnasium.envs import registration

    if ENVIRONMENT_ID not in registration.registry:
        registration.register(ENVIRONMENT_ID, entry_point="rlprune.envs.channel_pruning:ChannelPruningEnv")


class _AfterGymnasium:
    """A finder of modules that finds nothing itself: ours is added once Gymnasium's own environments are imported."""

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The module as the other finders find it, with one more step at the end of its import."""
        if fullname != LIST:
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(fullname, path, target) for finder in list(sys.meta_path))
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            _then(spec.loader)
        return spec


def _then(loader: object) -> None:
    execute = loader.exec_module  # type: ignore[attr-defined]

    def exec_module(module: "ModuleType") -> None:
        execute(module)
        _add()

    loader.exec_module = exec_module  # type: ignore[attr-defined]
