"""The runtime agent's policy as it is deployed: plain PyTorch and NumPy, which need no agent library.

Every layer has an encoder of its own, since its features mean something else; the rest is shared. With an LSTM in its
middle (Hochreiter & Schmidhuber, 1997) it remembers what it has seen of an image in the layers before.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

ENCODED = 32
CONTEXT = 3
"""Even keep ratio, cost of the decisions so far beyond that of the even plan, budget."""
Array = TypeVar("Array", Tensor, np.ndarray)
RecurrentState = tuple[Array, Array]
"""(images, ENCODED) outputs and cells of an LSTM after the last layer."""


class KeepPolicy(nn.Module):
    """Pooled features and importance of a layer, and where the walk stands -> the mean action.

    Args:
        inputs, channels: of every gate.
        recurrent: whether it remembers the layers before.
    """

    hidden: nn.Linear | nn.LSTMCell

    def __init__(self, inputs: Sequence[int], channels: Sequence[int], recurrent: bool = False) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Linear(seen + known, ENCODED) for seen, known in zip(inputs, channels, strict=True)
        )
        self.hidden = (nn.LSTMCell if recurrent else nn.Linear)(ENCODED + CONTEXT, ENCODED)
        self.head = nn.Linear(ENCODED, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def recurrent(self) -> bool:
        """Whether it remembers the layers before."""
        return isinstance(self.hidden, nn.LSTMCell)

    def encode(self, number: int, pooled: Tensor, importance: Tensor, context: Tensor) -> Tensor:
        """(images, ENCODED + CONTEXT) what the shared part looks at."""
        encoded = torch.relu(self.encoders[number](torch.cat([pooled, importance], dim=1)))
        return torch.cat([encoded, context], dim=1)

    def forward(
        self,
        number: int,
        pooled: Tensor,
        importance: Tensor,
        context: Tensor,
        memory: RecurrentState[Tensor] | None = None,
    ) -> tuple[Tensor, RecurrentState[Tensor] | None]:
        """(images,) mean actions, and what is remembered for the next layer."""
        seen = self.encode(number, pooled, importance, context)
        if isinstance(self.hidden, nn.LSTMCell):
            memory = self.hidden(seen, memory)
            inner = memory[0]
        else:
            inner = torch.tanh(self.hidden(seen))
        return self.head(inner)[:, 0], memory

    def act(
        self,
        number: int,
        pooled: np.ndarray,
        importance: np.ndarray,
        context: np.ndarray,
        memory: RecurrentState[np.ndarray] | None = None,
    ) -> tuple[np.ndarray, RecurrentState[np.ndarray] | None]:
        """The same in NumPy, which for one image is several times faster."""
        encoder, hidden, head = (arrays(layer) for layer in (self.encoders[number], self.hidden, self.head))
        encoded = np.maximum(linear(encoder, np.concatenate([pooled, importance], axis=1)), 0)
        inner, memory = think(hidden, np.concatenate([encoded, context], axis=1), memory)
        return linear(head, inner)[:, 0].astype(float), memory


def think(
    hidden: Sequence[np.ndarray], seen: np.ndarray, memory: RecurrentState[np.ndarray] | None
) -> tuple[np.ndarray, RecurrentState[np.ndarray] | None]:
    """What the middle layer makes of what is seen, and what it remembers.

    Args:
        hidden: its `arrays`: weights and biases of a linear layer, or of an LSTM for what is seen and what was put out.
        seen: (images, features), or (features,) of one image.
        memory: of the layers before; None at the first.
    """
    if len(hidden) == 2:
        return np.tanh(linear(hidden, seen)), None
    put_out, cell = memory or (np.zeros((*seen.shape[:-1], ENCODED), dtype=np.float32),) * 2
    put_in, forget, candidate, opened = np.split(linear(hidden[:2], seen) + linear(hidden[2:], put_out), 4, axis=-1)
    cell = _sigmoid(forget) * cell + _sigmoid(put_in) * np.tanh(candidate)
    put_out = _sigmoid(opened) * np.tanh(cell)
    return put_out, (put_out, cell)


def arrays(layer: nn.Module) -> list[np.ndarray]:
    """Views of a layer's tensors: weights and biases, of an LSTM those for what is seen first."""
    names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh") if isinstance(layer, nn.LSTMCell) else ("weight", "bias")
    return [layer.get_parameter(name).detach().numpy() for name in names]


def linear(layer: Sequence[np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """(..., outputs) of a linear layer's weights and biases."""
    weight, bias = layer
    outputs: np.ndarray = inputs @ weight.T + bias
    return outputs


def _sigmoid(values: np.ndarray) -> np.ndarray:
    # Without an overflow where values are very negative.
    found: np.ndarray = (np.tanh(values / 2) + 1) / 2
    return found
