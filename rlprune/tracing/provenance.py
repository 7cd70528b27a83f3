"""Which tensors have been made of a network's input."""

from collections.abc import Iterable

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class Provenance:
    """Remembers what is made of the data; what is written into a part of a tensor is written into the whole."""

    def __init__(self) -> None:
        self._made = WeakTensorKeyDictionary()
        self._wholes = WeakTensorKeyDictionary()

    def __contains__(self, tensor: Tensor) -> bool:
        return self._wholes.get(tensor, tensor) in self._made

    def add(self, tensors: Iterable[Tensor]) -> None:
        """These come of the data."""
        for tensor in tensors:
            self._made[self._wholes.get(tensor, tensor)] = True

    def relate(self, inputs: list[Tensor], results: list[Tensor]) -> None:
        """Remember which results of an operation are parts of its inputs."""
        places = {place: tensor for tensor in reversed(inputs) if (place := _place(tensor)) is not None}
        for result in results:
            whole = None if (place := _place(result)) is None else places.get(place)
            if whole is not None and whole is not result:
                self._wholes[result] = self._wholes.get(whole, whole)


def _place(tensor: Tensor) -> int | None:
    """Where a tensor keeps its numbers; None for one that has no such place."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None
