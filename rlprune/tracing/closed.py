"""Parts of a network that nobody can look into: scripted and quantised modules."""

from typing import Any

from torch import nn

from rlprune.errors import UserError
from rlprune.utils.modules import opaque


class Closed(nn.Module):
    """Such a part, as it is seen from outside.

    Args:
        part: itself.
        what: it is, in words.

    Attributes:
        trace: a `rlprune.tracing.tracer.Tracer`, which is told when the part runs.
    """

    trace: Any
    part: nn.Module

    def __init__(self, part: nn.Module, what: str) -> None:
        super().__init__()
        self.what = what
        # Not as a module, so that nobody asks for what is inside.
        self.__dict__["part"] = part

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the part's."""
        with self.trace.closed(self.what, [args, kwargs]):
            output = self.part(*args, **kwargs)
        self.trace.come_out(output)
        return output


def close(module: nn.Module) -> None:
    """Put a closed part in the place of every part of a network that cannot be looked into.

    Raises:
        UserError: the whole network is such a part.
    """
    if what := opaque(module):
        raise UserError(f"the network is {what}, which cannot be looked into: give the module that it was made from")
    for name, part in list(module.named_children()):
        if what := opaque(part):
            # Nobody reaches it any more to say so.
            setattr(module, name, Closed(part.eval(), what))
        else:
            close(part)
