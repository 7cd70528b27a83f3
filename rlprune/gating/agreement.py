"""Whether what is deployed is what is measured: a gated network that computes only the chosen channels, tried out.

Under masks a channel that is left out is still computed, and zero where it is read. Where nothing but layers that act
channel by channel lies between, that is the same; a norm, a softmax or a mean over channels tells the two apart. No
list of such operations could be complete, so that both are run, on real weights, and their outputs compared.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.gating.gate import Choose, Gate, Wire, inputs_of_layer
from rlprune.gating.gathering import Gathering
from rlprune.gating.network import GatedNetwork
from rlprune.graph.structure import Graph
from rlprune.utils.modules import evaluating

TRIED = 3
"""Images that gates are tried on."""
TOLERANCE = 1e-3
"""Of the spread of the logits over the images; rounding stays a hundred times below it."""
MIXED = "left out, its channels give other outputs than zeroed: something before their readers mixes channels"


class DisagreementError(Exception):
    """Why a gated network cannot be deployed; a sentence about the layer of a gate."""


def sound_wires(
    network: nn.Module, graph: Graph, wires: Sequence[Wire], images: Tensor
) -> tuple[tuple[Wire, ...], dict[str, str]]:
    """The gates under which the network computes alone what it computes under masks.

    Halves of those that do not are tried, and their halves, so that few bad gates take few tries. No gate that was left
    out could be added to what is found.

    Args:
        network: in any mode, on the images' device; it is left as it was.
        graph: its structure.
        wires: the gates it might have.
        images: (images, C, H, W), better real ones than noise; a few are looked at.

    Returns:
        The gates, and layer -> why it has none.

    Raises:
        UserError: none is left.
    """
    why_not: dict[str, str] = {}

    def grow(kept: tuple[Wire, ...], more: tuple[Wire, ...]) -> tuple[Wire, ...]:
        reason = _tried(network, graph, kept + more, images[:TRIED])
        if reason is None:
            return kept + more
        if len(more) == 1:
            why_not[more[0].layer] = reason
            return kept
        half = len(more) // 2
        return grow(grow(kept, more[:half]), more[half:])

    found = grow((), tuple(wires))
    if not found:
        layer, reason = next(iter(why_not.items()))
        raise UserError(f"no layer of this network can be skipped image by image: of {layer}, {reason}")
    return found, why_not


def require_agreement(gated: GatedNetwork, images: Tensor, choose: Choose | None = None) -> None:
    """Compare one image after the other, and two together, with the same images under masks.

    What was chosen under masks is chosen again: where two channels are about as important, rounding could exchange
    them, which is no fault.

    Args:
        gated: the network; it is left as it was.
        images: (images, C, H, W), at least 2, on its device.
        choose: in the place of the network's own gates and agent.

    Raises:
        DisagreementError: they differ.
    """
    gathering, script = Gathering(gated), _Script(choose or gated.chosen)
    with torch.no_grad(), evaluating(gated):
        gated.choose = script
        try:
            masked = script.run(gated, images, slice(None))
        finally:
            gated.choose = None
        if len(script.taken) < len(gated.wires):
            raise DisagreementError("it is not called where it was traced")
        spread = (masked - masked.mean(0)).abs().max()
        for rows in (*(slice(number, number + 1) for number in range(len(images))), slice(0, 2)):
            with gathering.on(script):
                alone = script.run(gated, images, rows)
            if not _close(alone, masked[rows], spread):
                raise DisagreementError(MIXED)


def _tried(network: nn.Module, graph: Graph, wires: Sequence[Wire], images: Tensor) -> str | None:
    """What speaks against these gates, with about half of all channels left out at random; None for nothing."""
    gates = [Gate(inputs_of_layer(network, wire.layer), wire.stop - wire.start, False) for wire in wires]
    gated = None
    try:
        gated = GatedNetwork(network, graph, wires, gates, 1.0).to(images.device)
        require_agreement(gated, images, _halves([wire.stop - wire.start for wire in wires]))
    except DisagreementError as error:
        return str(error)
    except torch.OutOfMemoryError:
        raise
    # Anybody's code runs here, on fewer channels than it was written for.
    except Exception as error:
        return f"the network fails without some of its channels ({' '.join(str(error).split())[:100] or repr(error)})"
    finally:
        if gated is not None:
            gated.bare()
    return None


def _halves(channels: Sequence[int]) -> Choose:
    """Chooses half of the channels, other ones for every image."""
    generator = torch.Generator().manual_seed(0)

    def choose(number: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        size = (len(pooled), channels[number])
        ranks = torch.rand(size, generator=generator).argsort(1).argsort(1)
        factor = torch.rand(size, generator=generator) + 0.5
        return (ranks < (size[1] + 1) // 2).to(pooled.device), factor.to(pooled)

    return choose


class _Script:
    """Remembers what was chosen, and chooses it again for a part of the images.

    Args:
        choose: chooses first.
    """

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.taken: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def run(self, gated: Callable[[Tensor], Tensor], images: Tensor, rows: slice) -> Tensor:
        """(images, classes) logits for some of the images."""
        self.rows, self.next, self.images = rows, 0, len(images[rows])
        return gated(images[rows])

    def __call__(self, number: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        if len(pooled) != self.images:
            raise DisagreementError(f"it is given {len(pooled)} images where the network is given {self.images}")
        if number != self.next:
            raise DisagreementError("it is called in another order than it was traced in")
        self.next += 1
        if number not in self.taken:
            self.taken[number] = (*self.choose(number, pooled), pooled)
        mask, factor, before = (tensor[self.rows] for tensor in self.taken[number])
        if not _close(pooled, before, before.abs().max()):
            raise DisagreementError(MIXED)
        return mask, factor


def _close(found: Tensor, expected: Tensor, scale: Tensor) -> bool:
    """Whether the largest difference is within the tolerance; never where something is not a number."""
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE * scale)
