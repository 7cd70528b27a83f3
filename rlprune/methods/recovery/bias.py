"""What a channel that was cut gave on average goes into the layers that read it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from rlprune.methods.recovery.base import Cut, Recovery, RepairContext
from rlprune.methods.recovery.base_consumers import channel_dim, consumers, left, watch_dense


@dataclass(frozen=True)
class Bias(Recovery):
    """What a cut channel gave on average on the calibration images goes into the bias of every layer that reads it.

    Where a layer has no bias, the batch norm that reads its outputs takes that much off its mean. Where there is
    neither, nothing changes. And where `bn` measures the means of the batch norm behind a layer anew, that undoes any
    constant: beside it only the other layers are repaired, such as the classifier and convolutions without batch norm.

    Paper: Evci et al., Mean Replacement Pruning, 2018
    """

    needs: ClassVar[tuple[str, ...]] = ("images",)
    rank: ClassVar[int] = 3

    def apply(self, module: nn.Module, cut: Cut, context: RepairContext) -> nn.Module:
        """See `Recovery.apply`. What other repairs have given back already is taken into account."""
        means = context.once(Bias, lambda: _mean_inputs(context))
        for consumer in consumers(module, cut, context):
            if consumer.takes_constants:
                # A layer of the mean is the mean of the layer, its padding included.
                mean, dim = means[consumer.name], channel_dim(consumer.dense)
                missing = consumer.gap(consumer.dense(mean), mean.index_select(dim, left(consumer.read, mean)))
                consumer.add(missing.movedim(dim, 0).flatten(1).mean(1))
        return module


def _mean_inputs(context: RepairContext) -> dict[str, Tensor]:
    """Layer -> (1, ...) mean over the calibration images of what it reads in the dense network."""
    sums: dict[str, Tensor] = {}

    def look(name: str, inputs: Tensor, output: Tensor, first: int) -> None:
        part = inputs.sum(0, keepdim=True) / len(context.images)
        sums[name] = sums[name] + part if name in sums else part

    watch_dense(context, look)
    return sums
