"""What is missing on average where channels were cut goes into the layers that read them."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from rlprune.methods.recovery.base import Cut, Recovery, RepairContext
from rlprune.methods.recovery.base_consumers import (
    Consumer,
    channel_dim,
    consumers,
    front_to_back,
    left,
    watch_dense,
)


@dataclass(frozen=True)
class Bias(Recovery):
    """What cut channels gave on average on the calibration images goes into the bias of every layer that read them.

    From front to back every output then has the mean that it has in the dense network. Where a layer has no bias, the
    batch norm that reads its outputs takes that much off its mean; where there is neither, nothing changes. And where
    `bn` measures the mean of that batch norm anew, any constant is undone: beside `bn` only the other layers are
    repaired, such as the classifier and convolutions without batch norm.

    Paper: Evci et al., Mean Replacement Pruning, 2018
    """

    needs: ClassVar[tuple[str, ...]] = ("images",)
    rank: ClassVar[int] = 3

    def apply(self, module: nn.Module, cut: Cut, context: RepairContext) -> nn.Module:
        """See `Recovery.apply`. What other repairs have given back already is not missing."""
        wanted = context.once(Bias, lambda: _mean_outputs(context))

        def add(consumer: Consumer, inputs: Tensor) -> None:
            # A layer of the mean is the mean of the layer, its padding included.
            now = _means(consumer.layer.forward(inputs.mean(0, keepdim=True)), consumer.layer)
            missing = wanted[consumer.name][left(consumer.made, now)] - now
            consumer.add(missing if consumer.added is None else missing - consumer.added)

        found = [one for one in consumers(module, cut, context) if one.takes_constants and one.name in wanted]
        front_to_back(module, context, found, add)
        return module


def _mean_outputs(context: RepairContext) -> dict[str, Tensor]:
    """Layer -> (outputs,) means over the calibration images and all positions in the dense network."""
    sums: dict[str, Tensor] = {}

    def look(name: str, output: Tensor, first: int) -> None:
        part = _means(output, context.module.get_submodule(name)) * (len(output) / len(context.images))
        sums[name] = sums[name] + part if name in sums else part

    whole = watch_dense(context, look)
    return {name: sums[name] for name in whole}


def _means(values: Tensor, layer: nn.Module) -> Tensor:
    """(channels,) over everything else."""
    return values.movedim(channel_dim(layer), 0).flatten(1).mean(1)
