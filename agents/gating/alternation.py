"""KeepController pruning is learnt in stages: predictors, static importance, then agents and network in turn.

The order of Chen, Chen & Pan (NeurIPS 2020). After every stage all that the next one needs is kept in one file, so that
the same command continues after the last stage that ended.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from rlprune.agents.gating.agents import make_runtime_agent, make_static_agent, static_plan, transfer
from rlprune.config.commands import RECURRENT, Search
from rlprune.cost.exact import Cost
from rlprune.envs.gating import BatchVecEnv, Rewards, RuntimeVecEnv, StaticVecEnv, stored_counts
from rlprune.evaluation.sliced import recalibrate
from rlprune.gating.controller import KeepController
from rlprune.gating.layout import Layout, macs_ratios
from rlprune.gating.network import GatedNetwork
from rlprune.training.snapshot import Snapshot
from rlprune.utils.device import seed_everything
from rlprune.utils.files import write_text
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import fit
from rlprune.workloads.workload import Workload

IMAGES = 128
"""BatchedEpisodes side by side: images of a batch."""
WARM = 1
"""Epochs of each stage in which nothing is left out."""
POINTS = 5
"""Budgets at which the shift of the keep ratios is measured, besides the budget itself."""
SPREAD = (0.6, 1.5)
"""The budgets a network learns to serve, relative to the one that is asked for."""
LARGEST_SHIFT = 3.0
HALVINGS = 14
TOLD = {
    "predictors": "predictors of importance",
    "importance": "importance for all images",
    "network": "the network under the agents",
    "final": "the network under the final agents",
}
STAGED = Path("state") / "stages.pt"


class Alternation:
    """The course of one run.

    Args:
        workload: the dense network's images and costs.
        gated: the network with its gates; changed in place.
        layout: its shape.
        budget: MACs ratio, the mean over images.
        acts: whether an agent decides for every image; without one every layer keeps the same ratio, as in FBS.
        given: settings.
        folder: gets the state, and `agents.csv` with the course of the agents.
        progress: told how far it is.
    """

    def __init__(
        self,
        workload: Workload,
        gated: GatedNetwork,
        layout: Layout,
        budget: float,
        acts: bool,
        given: Search,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.workload, self.gated, self.layout, self.budget = workload, gated, layout, budget
        self.given, self.folder, self.progress = given, folder, progress
        even = torch.full((len(layout.inputs),), float(layout.even(budget)), dtype=torch.float64)
        predicts = gated.gate(0).predictor is not None
        recurrent = given.agent == RECURRENT
        self.runtime = KeepController(layout, even, acts and gated.mix > 0, POINTS + 1, recurrent)
        self.agents: dict[str, BaseAlgorithm] = {}
        self.log: list[dict[str, float | str]] = []
        self._make_agents()
        self.stages: list[tuple[str, int]] = [("predictors", WARM)] * predicts + [("importance", WARM)]
        for number in range(given.rounds):
            self.stages += [("agents", number)] * bool(self.agents) + [("network", 1)]

    def run(self, epochs: int) -> None:
        """Go through all stages; the last one trains the network under agents that no longer change.

        Args:
            epochs: of the last stage.
        """
        parts: dict[str, Any] = {"module": self.gated, "runtime": self.runtime}
        parts |= {f"{name} agent": _State(agent) for name, agent in self.agents.items()}
        staged = Snapshot(self.folder / STAGED, {"stages": len(self.stages), "epochs": epochs}, parts)
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        self.log = list(staged.restore())  # type: ignore[arg-type]
        done = int(self.log[-1]["stage"]) if self.log else 0
        if done:
            self.progress.note(f"continuing {self.folder}: {done} of {len(self.stages) + 1} stages are done")
        for number, (kind, value) in enumerate([*self.stages, ("final", epochs)], 1):
            if number > done:
                {"agents": self._learn}.get(kind, self._train)(kind, value, number)
                self.log.append({"stage": number, "kind": kind})
                staged.save(self.log)  # type: ignore[arg-type]
                self._write()
            # Also of a stage after which nothing else was done any more.
            self._training(number).unlink(missing_ok=True)
        self._settle()

    def _make_agents(self) -> None:
        """The environments and agents that this kind of run has."""
        images, seed, log = min(IMAGES, len(self.workload.data.train)), self.given.seed, self.folder / "tensorboard"
        shared = (self.gated, self.layout, self.workload.cost, self._batches, images)
        self.envs: dict[str, BatchVecEnv] = {}
        if self.runtime.policy is not None:
            env = RuntimeVecEnv(*shared, self.runtime.static)
            recurrent = self.runtime.policy.recurrent
            self.envs["runtime"] = env
            self.agents["runtime"] = make_runtime_agent(env, self.layout, seed, log, recurrent)
        if self.gated.mix < 1:
            still = StaticVecEnv(*shared, self.runtime)
            self.envs["static"] = still
            self.agents["static"] = make_static_agent(still, len(self.layout.inputs), seed, log)

    def _train(self, kind: str, epochs: int, number: int) -> None:
        """Train the network, with nothing left out before the first agents have learnt."""
        warm = kind in ("predictors", "importance")
        for index in range(len(self.gated.gates)):
            self.gated.gate(index).scale.requires_grad_(kind != "predictors")
        self.gated.runtime = None if warm else self.runtime
        self._aim(self.budget)
        self.runtime.spread = (SPREAD[0] * self.budget, min(1.0, SPREAD[1] * self.budget))
        given = replace(self.given, seed=self.given.seed + number)
        called = f"training, stage {number} of {len(self.stages) + 1}: {TOLD[kind]}"
        state = self._training(number)
        teacher = self.workload.module if given.distills else None
        fit(
            self.gated, self.workload, epochs, given, state, self.progress, recovery=True, stage=called, teacher=teacher
        )
        # A submodule that is frozen must be out of the way before states are compared.
        self.gated.runtime = None

    def _training(self, number: int) -> Path:
        """Where a stage keeps the state of its training; whoever is killed may leave that of the last stage behind."""
        return self.folder / "state" / f"stage-{number}.pt"

    def _learn(self, kind: str, round_number: int, number: int) -> None:
        """Let each agent learn while the other one and the network stand still."""
        seed_everything(self.given.seed + 1000 * number)
        self._aim(self.budget)
        self.gated.runtime = self.runtime
        recalibrate(self.gated, self.workload.calibration()[0])
        self.gated.runtime = None
        for name, agent in self.agents.items():
            agent.set_random_seed(self.given.seed + 1000 * number)
            self._course = self._shuffled(self.given.seed + 1000 * number)
            steps = self.given.rollouts * len(self.layout.inputs) * self.envs[name].num_envs
            self.progress.stage(f"{name} agent, round {round_number + 1} of {self.given.rounds}", self.given.rollouts)
            watch = _Watch(self.envs[name], self.progress)
            # What is a usual loss changes with the network.
            self.envs[name].rewards = Rewards()
            try:
                agent.learn(steps, callback=watch, tb_log_name=f"{name}-{round_number + 1}")
            finally:
                self.envs[name].close()
            self.log += [{"stage": number, "kind": name, "batch": batch, **told} for batch, told in watch.taken()]
            if name == "runtime":
                assert self.runtime.policy is not None
                transfer(agent, self.runtime.policy)
            else:
                self.runtime.static.copy_(static_plan(agent, self.envs[name]))
        self._aim(self.budget)

    def _batches(self) -> tuple[Tensor, Tensor, np.ndarray]:
        indices = next(self._course)
        images, labels = self.workload.data.train.take(indices)
        device = self.workload.device
        images = images.to(device, memory_format=torch.channels_last)
        return images, labels.to(device), np.full(len(indices), self.budget)

    def _shuffled(self, seed: int) -> Iterator[Tensor]:
        """Batches of training images, over and over."""
        generator, count = torch.Generator().manual_seed(seed), len(self.workload.data.train)
        images = min(IMAGES, count)
        while True:
            order = torch.randperm(count, generator=generator)
            yield from order[: count - count % images].split(images)

    def _aim(self, budget: float) -> None:
        """Shift the keep ratios so that the mean over the calibration images meets one budget."""
        self.runtime.budget = budget
        self._shift(np.array([budget]))

    def _settle(self) -> None:
        """Measure the shifts of all budgets that can be asked for, and stop at the one that was."""
        self.runtime.spread, self.runtime.budget = None, self.budget
        low, high = SPREAD[0] * self.budget, min(1.0, SPREAD[1] * self.budget)
        self._shift(np.unique([*np.linspace(low, high, POINTS), self.budget]))

    def _shift(self, budgets: np.ndarray) -> None:
        """The largest shifts under which the mean over the calibration images meets each budget."""
        self.gated.eval()
        # Not always a part of the network, and while it trains it draws budgets of its own.
        self.runtime.eval()
        if self.gated.mix == 0:
            self.runtime.static.copy_(project_static(self.gated, self.workload.cost, self.runtime.static, self.budget))
            self._set_shifts(np.array([self.budget]), np.zeros(1))
            return
        images, _ = self.workload.calibration()
        found = [bisect(lambda shift: self._fits(images, budget, shift)) for budget in budgets]  # noqa: B023
        self._set_shifts(budgets, np.array(found))
        self.runtime.budget = self.budget

    def _fits(self, images: Tensor, budget: float, shift: float) -> bool:
        self._set_shifts(np.array([budget]), np.array([shift]))
        self.runtime.budget = budget
        return float(macs_ratios(self.gated, self.runtime, self.workload.cost, images).mean()) <= budget

    def _set_shifts(self, budgets: np.ndarray, shifts: np.ndarray) -> None:
        """Fill the table, whose size is fixed, by repeating its last point."""
        points = [min(index, len(budgets) - 1) for index in range(POINTS + 1)]
        for buffer, values in ((self.runtime.budgets, budgets), (self.runtime.shifts, shifts)):
            buffer.copy_(torch.as_tensor(values[points]))

    def _write(self) -> None:
        rows = [row for row in self.log if "reward" in row]
        write_text(self.folder / "agents.csv", pd.DataFrame(rows).to_csv(index=False))


def project_static(gated: GatedNetwork, cost: Cost, keeps: Tensor, budget: float) -> Tensor:
    """The static keep ratios, all scaled alike, whose plan meets a budget of MACs: there is nothing else to steer."""

    def fits(shift: float) -> bool:
        counts = stored_counts(gated, (keeps * np.exp(shift)).clamp(max=1)[:, None].numpy())
        return bool(cost.ratios(counts)[0, 0] <= budget)

    return (keeps * np.exp(bisect(fits))).clamp(max=1)


def bisect(fits: Callable[[float], bool]) -> float:
    """The largest shift that fits, to within what one channel makes."""
    low, high = -LARGEST_SHIFT, LARGEST_SHIFT
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class _Watch(BaseCallback):
    """Tells how far an agent is, and collects what it has gone through."""

    def __init__(self, env: BatchVecEnv, progress: Progress) -> None:
        super().__init__()
        self.env, self.teller = env, progress
        self.env.told.clear()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        told = self.env.told[-1]
        for key, value in told.items():
            self.logger.record(f"batch/{key}", value)
        facts = {"reward": f"{told['reward']:.3f}", "MACs": f"{100 * told['macs_ratio']:.1f} %"}
        self.teller.update(len(self.env.told), **facts, accuracy=f"{100 * told['accuracy']:.1f} %")

    def taken(self) -> list[tuple[int, dict[str, float]]]:
        """Every batch with its number."""
        return list(enumerate(self.env.told, 1))


@dataclass(frozen=True)
class _State:
    """What an agent brings from one round to the next."""

    agent: BaseAlgorithm

    def state_dict(self) -> dict[str, Any]:
        policy: Any = self.agent.policy
        return {"policy": policy.state_dict(), "optimizer": policy.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        policy: Any = self.agent.policy
        policy.load_state_dict(state["policy"])
        policy.optimizer.load_state_dict(state["optimizer"])
