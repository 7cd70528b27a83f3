"""Policies on disk: safetensors and JSON, walked without a search, without Stable-Baselines3 and without unpickling.

What a trained agent does when it does not explore is a small network of linear layers, whichever agent it was. That
network and all that a walk elsewhere needs of the network it was trained on are a folder that can be taken along.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from rlprune._version import __version__
from rlprune.agents.rollout import rollout
from rlprune.agents.search.setup import Prepared
from rlprune.agents.transfer import SourceNetwork
from rlprune.config.commands import Search
from rlprune.config.resolve import as_dict
from rlprune.envs import observation
from rlprune.envs.episode import EpisodeSpec
from rlprune.errors import UserError
from rlprune.models.checkpoint import read_weights, save_weights
from rlprune.utils.environment import environment
from rlprune.utils.files import FileFormat, write_atomic
from rlprune.workloads.workload import Workload, inputs_of

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

POLICY_FORMAT = FileFormat("rlprune-policy", 4, oldest=3)
ENDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"clip": lambda actions: np.clip(actions, -1, 1), "tanh": np.tanh}
"""What follows the last layer: the mean of a Gaussian is clipped, an actor is squashed."""


@dataclass(frozen=True)
class Policy:
    """A trained agent's actions without exploration.

    Attributes:
        agent: the name of the agent.
        layers: (weights, biases) of linear layers with a ReLU between any two.
        end: one of `ENDS`.
        reach: see `rlprune.envs.episode.EpisodeSpec`.
        names: of what it sees.
        settings: those of the search.
        provenance: what the search worked on, and with what.
        sources: the networks that it was trained on.
    """

    agent: str
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    end: str
    reach: float
    names: tuple[str, ...]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    sources: tuple[SourceNetwork, ...]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """(walks, features) observations -> (walks,) actions in [-1, 1]."""
        values = observations
        for number, (weights, biases) in enumerate(self.layers):
            values = (values if number == 0 else np.maximum(values, 0)) @ weights.T + biases
        return ENDS[self.end](values).reshape(-1)

    def walk(self, spec: EpisodeSpec) -> np.ndarray:
        """(groups,) kept counts of one walk without exploration.

        A policy that was trained without a bound on the latency does not see how much of it is left.

        Raises:
            UserError: the episode does not show all that the policy was trained on.
        """
        shown = spec.features.names
        if unseen := [name for name in self.names if name not in shown]:
            latency = unseen == [name for name in unseen if name.endswith("_latency")]
            fix = "give a budget such as latency=0.5" if latency else "search anew"
            raise UserError(f"the policy was trained to see '{unseen[0]}', which is not shown here: {fix}")
        columns = [shown.index(name) for name in self.names]
        return rollout(lambda observations: self.act(observations[:, columns]), spec, 1)[1][0]

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json`."""
        import torch

        named = {f"{number}.{name}": torch.from_numpy(array) for number, layer in enumerate(self.layers)
                 for name, array in zip(("weight", "bias"), layer, strict=True)}  # fmt: skip
        save_weights(named, folder / "policy.safetensors")
        facts = {
            "agent": self.agent,
            "sizes": [self.layers[0][0].shape[1], *(len(biases) for _, biases in self.layers)],
            "end": self.end,
            "reach": self.reach,
            "observation": {
                "version": observation.VERSION, "names": list(self.names), "static": self.sources[0].facts.shape[1],
                "clipped_at": observation.BOUND,
            },
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "homes": [source.as_json() for source in self.sources],
        }  # fmt: skip
        POLICY_FORMAT.write(folder / "policy.json", facts)


def policy_of(agent: "BaseAlgorithm", given: Search, trained: Sequence[tuple[Workload, Prepared]]) -> Policy:
    """What is kept of a trained agent.

    Args:
        agent: the agent.
        given: the settings of its search.
        trained: the networks that it was trained on, and what it walked there.
    """
    spec = trained[0][1].specs[0]
    settings = as_dict(given)
    told = {key: settings[key] for key in ("budget", "evaluations", "seed", "criterion", "reward")}
    told["rlprune"] = __version__
    versions = {key: text for key, text in environment().items() if key in ("torch", "stable-baselines3")}
    layers, end = layers_of(agent)
    sources = tuple(_source(*one) for one in trained)
    return Policy(given.agent, layers, end, spec.reach, spec.features.names, settings, told | versions, sources)


def _source(workload: Workload, prepared: Prepared) -> SourceNetwork:
    features = prepared.specs[0].features
    channels = {group.name: group.channels for group in workload.graph.groups}
    return SourceNetwork(
        workload.network, workload.data.name, inputs_of(workload), channels,
        features.names[: features.static.shape[1]], features.static, prepared.sensitivity,
        prepared.base,
    )  # fmt: skip


def save_agent(agent: "BaseAlgorithm", policy: Policy, folder: Path) -> None:
    """Write a policy and, for those who want to train on, Stable-Baselines3's own zip beside it."""
    policy.save(folder)
    write_atomic(folder / "agent.zip", lambda path: agent.save(path))


def layers_of(agent: "BaseAlgorithm") -> tuple[tuple[tuple[np.ndarray, np.ndarray], ...], str]:
    """The layers of a trained agent that its actions without exploration go through, and how they end."""
    policy: Any = agent.policy
    if hasattr(policy, "action_net"):
        modules, end = [*policy.mlp_extractor.policy_net, policy.action_net], "clip"
    elif hasattr(policy.actor, "latent_pi"):
        modules, end = [*policy.actor.latent_pi, policy.actor.mu], "tanh"
    else:
        modules, end = list(policy.actor.mu), "tanh"
    layers = [
        (module.weight.detach().cpu().numpy(), module.bias.detach().cpu().numpy())
        for module in modules
        if isinstance(module, nn.Linear)
    ]
    return tuple(layers), end


def find_policy(source: Path) -> Path:
    """The folder with the policy in or at a folder.

    Raises:
        UserError: there is none.
    """
    for folder in (source / "policy", source):
        if (folder / "policy.json").is_file():
            return folder
    raise UserError(f"{source} holds no policy: expected a run folder whose search has ended, or its policy folder")


def load_policy(folder: Path) -> Policy:
    """Read a policy back.

    Raises:
        UserError: unreadable, of another version of rlprune, or one that sees other things than this one shows.
    """
    data = POLICY_FORMAT.read(folder / "policy.json")
    try:
        seen, sizes = data["observation"], [int(size) for size in data["sizes"]]
        if seen["version"] != observation.VERSION:
            raise UserError(
                f"the policy in {folder} sees observations of version {seen['version']}, and this rlprune shows those "
                f"of version {observation.VERSION}: search anew with this rlprune"
            )
        names = tuple(seen["names"])
        sources = tuple(SourceNetwork.from_json(source, names[: seen["static"]]) for source in data["homes"])
        about = data["agent"], data["settings"], data["provenance"]
        end, reach = data["end"], float(data["reach"])
        if not sources or end not in ENDS or len(names) != sizes[0] or sizes[-1] != 1 or not reach > 0:
            raise ValueError("layers that do not fit together")
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder / 'policy.json'} is not a complete policy: {error!r}") from None
    return Policy(about[0], _layers(folder, sizes), end, reach, names, *about[1:], sources)


def _layers(folder: Path, sizes: list[int]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    path = folder / "policy.safetensors"
    tensors = {name: tensor.numpy() for name, tensor in read_weights(path).items()}
    expected: dict[str, tuple[int, ...]] = {}
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        expected |= {f"{number}.weight": (outputs, inputs), f"{number}.bias": (outputs,)}
    fits = {name: array.shape for name, array in tensors.items()} == expected
    if not fits or not all(np.isfinite(array).all() for array in tensors.values()):
        raise UserError(f"{path} does not fit policy.json beside it: expected finite layers of sizes {sizes}")
    return tuple((tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in range(len(sizes) - 1))
