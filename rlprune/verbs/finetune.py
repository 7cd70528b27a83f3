"""`rlprune finetune`."""

import time
from pathlib import Path
from typing import Any

from rlprune.config import Finetune, as_dict, resolve
from rlprune.files import new_folder
from rlprune.finetune import evaluate
from rlprune.finish import save_pruned
from rlprune.plan import PruningPlan
from rlprune.problem import fit, open_problem, settings_of_plan
from rlprune.progress import Progress
from rlprune.pruner import load, pruned_folder


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
    folder = pruned_folder(given.source)
    plan = PruningPlan.load(folder / "plan.json")
    problem = open_problem(settings_of_plan(as_dict(given), plan), progress)
    module = load(folder, problem.device)
    epochs = problem.data.finetune_epochs if given.epochs is None else given.epochs
    _, before = evaluate(module, problem.data.test, device=problem.device)
    out = folder if given.out is None else new_folder(given.out)
    state = out / "finetune.state"
    fit(module, problem, epochs, given, state, progress, "fine-tuning")
    save_pruned(module, plan, out)
    state.unlink(missing_ok=True)
    _, after = evaluate(module, problem.data.test, device=problem.device)
    seconds = round(time.perf_counter() - start, 1)
    return {"pruned": str(out), "before": before, "after": after, "epochs": epochs, "seconds": seconds}
