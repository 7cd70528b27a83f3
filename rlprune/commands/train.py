"""`rlprune train`."""

import time
from pathlib import Path
from typing import Any

from rlprune.commands.base import command
from rlprune.config.commands import Train
from rlprune.config.resolve import as_dict
from rlprune.errors import UserError
from rlprune.models.checkpoint import save_weights
from rlprune.training.loop import evaluate
from rlprune.training.weight_log import WeightLog
from rlprune.utils.files import check_writable
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import fit
from rlprune.workloads.workload import open_workload


@command(Train)
def train(given: Train, progress: Progress) -> dict[str, Any]:
    """Train a dense network and write its weights as safetensors to `out`; an interrupted training continues.

    Asked for snapshots, it writes the weights on the way to the folder `out` with the ending .snapshots.
    """
    start = time.perf_counter()
    name = f"{Path(given.model).name.replace(':', '_')}-{given.data.partition(':')[0]}.safetensors"
    out = given.out or Path(name)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file such as {out / name}")
    check_writable(out.parent)
    workload = open_workload(as_dict(given), progress)
    epochs = workload.data.train_epochs if given.epochs is None else given.epochs
    state = out.with_suffix(".state")
    log = None
    if given.snapshots:
        log = WeightLog(out.with_suffix(".snapshots"), given.snapshots, workload.module, state.is_file())
    how: dict[str, Any] = {"recovery": workload.untrained, "stage": "training the dense network", "on_step": log}
    fit(workload.module, workload, epochs, given, state, progress, **how)
    save_weights(workload.module, out)
    state.unlink(missing_ok=True)
    loss, accuracy = evaluate(workload.module, workload.data.test, device=workload.device)
    macs, params = workload.cost.dense
    return {
        "checkpoint": str(out),
        **({"snapshots": str(log.paths[0].parent)} if log else {}),
        "test_accuracy": accuracy,
        "test_loss": loss,
        "macs": int(macs),
        "params": int(params),
        "epochs": epochs,
        "seconds": round(time.perf_counter() - start, 1),
    }
