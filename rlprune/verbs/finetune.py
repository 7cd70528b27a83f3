"""`rlprune finetune`."""

import time
from pathlib import Path
from typing import Any

from rlprune.config import Finetune, as_dict, resolve
from rlprune.files import check_new, check_writable
from rlprune.finish import costs, save_pruned
from rlprune.problem import fit, open_pruned
from rlprune.progress import Progress
from rlprune.pruner import pruned_folder
from rlprune.training import evaluate

STATE = "finetune.state"
"""In the folder of the results; an interrupted training continues from it."""


def finetune(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Train a pruned network further; writes a pruned folder to `out`, or in place of the one it came from.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Finetune`.

    Raises:
        UserError: whatever cannot be used.
    """
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Finetune, settings, config)
    out = _out(given)
    problem, module, plan = open_pruned(given.source, as_dict(given) | {"checkpoint": given.teacher}, progress)
    epochs = problem.data.finetune_epochs if given.epochs is None else given.epochs
    _, before = evaluate(module, problem.data.test, device=problem.device)
    state = out / STATE
    teacher = problem.module if given.teacher else None
    fit(module, problem, epochs, given, state, progress, recovery=True, teacher=teacher)
    _, after = evaluate(module, problem.data.test, device=problem.device)
    facts = {"oneshot_accuracy": before, "finetuned_accuracy": after, **costs(problem, plan.counts())}
    save_pruned(module, plan, out, facts)
    state.unlink(missing_ok=True)
    seconds = round(time.perf_counter() - start, 1)
    return {"pruned": str(out), "before": before, "after": after, "epochs": epochs, "seconds": seconds}


def _out(given: Finetune) -> Path:
    """Where to write: the folder itself, an empty one, or that of the same training when it was interrupted."""
    if given.out is None:
        folder = pruned_folder(given.source)
        check_writable(folder)
        return folder
    return given.out if (given.out / STATE).is_file() else check_new(given.out)
