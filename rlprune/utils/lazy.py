"""Lazy layers, which find out the sizes of their inputs by being run once."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rlprune.errors import UserError
from rlprune.utils.modules import evaluating, named_tensors


def settle(module: nn.Module, run: Callable[[], object], inputs: str) -> None:
    """Run a network once if it has lazy layers.

    Args:
        module: the network.
        run: runs it on an example.
        inputs: what that is, in words.

    Raises:
        UserError: it does not run.
    """
    if not any(is_lazy(tensor) for tensor in named_tensors(module).values()):
        return
    try:
        with evaluating(module), torch.no_grad():
            run()
    # Anybody's code runs here.
    except Exception as error:
        raise UserError(f"the network does not run on {inputs}: {error}") from error
