"""`rlprune train`."""

import time
from pathlib import Path
from typing import Any

from rlprune.config import Train, as_dict, resolve
from rlprune.errors import UserError
from rlprune.files import check_writable
from rlprune.models.checkpoint import save_weights
from rlprune.problem import fit, open_problem
from rlprune.progress import Progress
from rlprune.training import evaluate


def train(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Train a dense network and write its weights as safetensors to `out`; an interrupted training continues.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Train`.

    Raises:
        UserError: whatever cannot be used.
    """
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Train, settings, config)
    name = f"{Path(given.model).name.replace(':', '_')}-{given.data.partition(':')[0]}.safetensors"
    out = given.out or Path(name)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file such as {out / name}")
    check_writable(out.parent)
    problem = open_problem(as_dict(given), progress)
    epochs = problem.data.train_epochs if given.epochs is None else given.epochs
    state = out.with_suffix(".state")
    fit(problem.module, problem, epochs, given, state, progress)
    save_weights(problem.module, out)
    state.unlink(missing_ok=True)
    loss, accuracy = evaluate(problem.module, problem.data.test, device=problem.device)
    macs, params = problem.cost.dense
    return {
        "checkpoint": str(out),
        "test_accuracy": accuracy,
        "test_loss": loss,
        "macs": int(macs),
        "params": int(params),
        "epochs": epochs,
        "seconds": round(time.perf_counter() - start, 1),
    }
