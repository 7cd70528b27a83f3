"""What is made of the data, through views and what is written into them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.tracing.build import build_graph
from rlprune.tracing.provenance import Provenance


def test_what_is_written_into_a_part_is_written_into_the_whole() -> None:
    known, data, whole = Provenance(), torch.ones(2), torch.zeros(4)
    known.add([data])
    part = whole[:2]
    known.relate([whole], [part])
    smaller = part[1:]
    known.relate([part], [smaller])
    assert data in known
    assert whole not in known
    known.relate([smaller, data], [smaller.copy_(data[:1])])
    known.add([smaller])
    assert all(tensor in known for tensor in (whole, part, smaller))
    assert torch.zeros(4) not in known


class Own(Tensor):
    """A tensor of a class of its own."""


def network(middle: Callable[[Tensor], Tensor]) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(middle(self.one(x).relu()))

    return Net()


def test_an_example_of_a_class_of_its_own_is_one_of_numbers() -> None:
    graph = build_graph(network(lambda y: y), torch.zeros(1, 3, 8, 8).as_subclass(Own))
    assert [(group.name, group.channels, group.consumers) for group in graph.groups] == [("one", 8, ("last",))]


LOST: dict[str, Callable[[Tensor], Tensor]] = {
    "class": lambda y: y.as_subclass(Own),
    "NumPy": lambda y: torch.from_numpy(y.numpy() * 1),
    "lists": lambda y: torch.tensor(y.tolist()),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_thread_is_told_and_nothing_is_cut(name: str) -> None:
    with pytest.raises(UserError, match="cannot be followed back to its input"):
        build_graph(network(LOST[name]), torch.zeros(1, 3, 8, 8))
