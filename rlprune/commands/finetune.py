"""`rlprune finetune`."""

import time
from pathlib import Path
from typing import Any

from rlprune.artifacts.pruned import pruned_folder, save_pruned
from rlprune.commands.base import command
from rlprune.config.commands import Finetune
from rlprune.config.resolve import as_dict
from rlprune.errors import UserError
from rlprune.pipeline.results import costs
from rlprune.training.loop import evaluate
from rlprune.utils.files import check_new, check_writable
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import finetuning_epochs, fit
from rlprune.workloads.pruned import open_pruned

STATE = "finetune.state"
"""In the folder of the results; an interrupted training continues from it."""


@command(Finetune)
def finetune(given: Finetune, progress: Progress) -> dict[str, Any]:
    """Train a pruned network further; writes a pruned folder to `out`, or in place of the one it came from."""
    start = time.perf_counter()
    out = _out(given)
    workload, module, plan = open_pruned(given.source, as_dict(given) | {"checkpoint": given.teacher}, progress)
    if workload.untrained:
        raise UserError(
            f"--teacher {given.teacher} has another last layer than {given.source}: it can teach it nothing"
        )
    epochs = finetuning_epochs(given, workload.data, given.epochs)
    _, before = evaluate(module, workload.data.test, device=workload.device)
    state = out / STATE
    teacher = workload.module if given.teacher else None
    fit(module, workload, epochs, given, state, progress, recovery=True, teacher=teacher)
    _, after = evaluate(module, workload.data.test, device=workload.device)
    facts = {"oneshot_accuracy": before, "finetuned_accuracy": after, **costs(workload, plan.counts())}
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
