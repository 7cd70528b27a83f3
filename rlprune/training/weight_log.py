"""The weights of a training on their way, in files: what criteria of its dynamics read."""

from pathlib import Path

from torch import nn

from rlprune.errors import UserError
from rlprune.models.checkpoint import save_weights
from rlprune.utils.files import check_writable


class WeightLog:
    """Writes the weights of a network in training so many times, evenly spaced; the last are those it ends with.

    Args:
        folder: for a safetensors file each.
        number: how many.
        module: the network.
        continued: the training goes on, so that the first files may be there.

    Raises:
        UserError: the folder cannot be written, or holds others.
    """

    def __init__(self, folder: Path, number: int, module: nn.Module, continued: bool) -> None:
        self.paths = [folder / f"{place:04}-of-{number:04}.safetensors" for place in range(1, number + 1)]
        self.module, self.number = module, number
        there = set(folder.glob("*.safetensors"))
        # Those of a training that was interrupted before it could be continued are written again.
        if there - set(self.paths) or (self.paths[-1] in there and not continued):
            raise UserError(f"{folder} holds snapshots of another training: remove it, or choose another --out")
        check_writable(folder)

    def __call__(self, done: int, total: int) -> None:
        """Write the weights if they are due after so many steps of all.

        Raises:
            UserError: there are less steps than files, or those before this one are missing.
        """
        if total < self.number:
            raise UserError(f"--snapshots {self.number}: the training takes no more than {total} steps")
        # The n-th of N is due at the first step at or behind n / N of the way.
        due = done * self.number // total
        if due == (done - 1) * self.number // total:
            return
        if not all(path.is_file() for path in self.paths[: due - 1]):
            folder = self.paths[0].parent
            raise UserError(
                f"the first snapshots are missing in {folder}, for the training was begun without --snapshots: remove "
                f"{folder.with_suffix('.state')} to start over"
            )
        save_weights(self.module, self.paths[due - 1])
