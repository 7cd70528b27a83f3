"""`rlprune.make_env`: no command of the command line, but a function like theirs."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlprune.commands.base import shown
from rlprune.config.commands import Search
from rlprune.config.resolve import resolve
from rlprune.pipeline.environment import open_environment
from rlprune.utils.progress import Progress


def make_env(
    *, config: Path | None = None, progress: Progress | None = None, render_mode: str | None = None, **settings: Any
) -> gym.Env[np.ndarray, np.ndarray]:
    """The environment of a network, images and a budget, ready for any agent; trains the network if it must.

    An episode decides how much of every group of channels to keep, and ends with the reward that the agent of a search
    gets. `env.unwrapped.plan()` is the plan of the last finished episode, to save and to cut by.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is; without one a notebook shows it, and elsewhere nothing does.
        render_mode: ``"ansi"``, so that `render` returns a table as text, or None.
        settings: those of a search, see `rlprune.config.commands.Search`. Those that say how it searches, what follows
            it and where its results go change nothing here.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    with shown(progress) as told:
        return open_environment(resolve(Search, settings, config), told, render_mode)
