"""Policies on disk: safetensors and JSON, replayed without a search and without unpickling anything."""

from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.agents import make_agent
from rlprune.agents.rollout import greedy, rollout
from rlprune.envs.vector import WalkVecEnv
from rlprune.envs.walk import Task
from rlprune.errors import UserError
from rlprune.files import read_json, write_atomic, write_json
from rlprune.models.checkpoint import save_weights

FORMAT = "rlprune-policy"
VERSION = 1


def save_policy(agent: BaseAlgorithm, name: str, task: Task, folder: Path) -> None:
    """Write `policy.safetensors` and `policy.json`, and Stable-Baselines3's own zip beside them.

    Args:
        agent: the trained agent.
        name: its name, one of `AGENTS`.
        task: what it was trained on; the names of its observations go into the file.
        folder: where to.
    """
    save_weights(agent.policy, folder / "policy.safetensors")
    facts = {"agent": name, "reach": task.reach, "balance": task.balance, "observation": list(task.features.names)}
    write_json(folder / "policy.json", {"format": FORMAT, "version": VERSION, **facts})
    write_atomic(folder / "agent.zip", lambda path: agent.save(path))


def load_policy(folder: Path, task: Task) -> BaseAlgorithm:
    """Read a policy back for a task; its random state is not restored.

    Raises:
        UserError: no policy there, or one that sees other things than this task shows.
    """
    data = read_json(folder / "policy.json", FORMAT, VERSION)
    if data.get("observation") != list(task.features.names):
        raise UserError(f"the policy in {folder} was trained with other observations than this rlprune makes")
    agent = make_agent(str(data.get("agent")), WalkVecEnv([task], [_no_score], 1), len(task.base), seed=0)
    try:
        agent.policy.load_state_dict(load_file(folder / "policy.safetensors"))
    except Exception as error:
        raise UserError(f"cannot read the policy in {folder}: {error}") from None
    return agent


def walk_policy(agent: BaseAlgorithm, task: Task) -> np.ndarray:
    """(groups,) kept counts of one walk without exploration."""
    return rollout(greedy(agent), task, 1)[1][0]


def _no_score(counts: np.ndarray) -> np.ndarray:
    return np.zeros(len(counts))
