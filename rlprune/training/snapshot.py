"""The state of an unfinished training, in a file from which it continues."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlprune.errors import UserError
from rlprune.utils.files import write_atomic
from rlprune.utils.modules import shapes_of
from rlprune.utils.safe_load import load_plain


@dataclass(frozen=True)
class Snapshot:
    """Everything an interrupted training needs to continue exactly, in one file (or in none).

    Args:
        path: the file; without one nothing is saved and nothing restored.
        settings: what must be the same again, as plain values.
        parts: whatever has a state: the network as ``module``, and what steps it.
    """

    path: Path | None
    settings: dict[str, Any]
    parts: dict[str, Any]

    def save(self, history: list[dict[str, float]]) -> None:
        """Write the states of the parts and what has happened so far."""
        if self.path:
            parts = {name: part.state_dict() for name, part in self.parts.items()}
            saved = {"settings": self.settings, "history": history, "parts": parts}
            write_atomic(self.path, lambda partial: torch.save(saved, partial))

    def restore(self) -> list[dict[str, float]]:
        """Bring the parts to the state in the file, if there is one; returns what had happened, ``[]`` if nothing.

        Raises:
            UserError: the file is damaged, or of another training; no part was changed.
        """
        if self.path is None or not self.path.exists():
            return []
        try:
            saved: Any = load_plain(self.path)
            self._agree("setting", saved["settings"], self.settings)
            self._agree("tensor", shapes_of(saved["parts"]["module"]), shapes_of(self.parts["module"].state_dict()))
        except UserError:
            raise
        # Bytes that are no snapshot make the reader fail in any way at all.
        except Exception as error:
            raise UserError(f"'{self.path}' is no saved training: remove it to start over") from error
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        return saved["history"]

    def _agree(self, kind: str, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
        for name in {**wanted, **saved}:
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"'{self.path}' is the state of another training: its {kind} {name} is {saved.get(name)}, "
                    f"here it is {wanted.get(name)}; use the same again, or remove the file to start over"
                )
