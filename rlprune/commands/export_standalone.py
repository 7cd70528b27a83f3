"""`rlprune export --format torch-export` and `--format python`."""

from typing import Any

from rlprune.artifacts.pruned import open_folder, pruned_folder
from rlprune.config.commands import Export
from rlprune.errors import UserError
from rlprune.exports.standalone import write_program, write_python
from rlprune.gating.masked import traceable
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import shape_of


def export_program(given: Export, progress: Progress) -> dict[str, Any]:
    """Write the pruned network of a folder as `.pt2`."""
    folder = pruned_folder(given.source)
    out = given.out or folder / "model.pt2"
    if out.is_dir() or out.suffix != ".pt2":
        fix = out / "model.pt2" if out.is_dir() else out.with_suffix(".pt2")
        raise UserError(f"--out {out} is no .pt2 file: name one such as {fix}")
    progress.stage("exporting")
    module, plan = open_folder(folder)
    write_program(traceable(module), shape_of(plan.network), out)
    return {"path": str(out)}


def export_python(given: Export, progress: Progress) -> dict[str, Any]:
    """Write the pruned network of a folder as Python and safetensors."""
    folder = pruned_folder(given.source)
    out = given.out or folder
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: name a folder for model.py and model.safetensors")
    progress.stage("exporting")
    module, plan = open_folder(folder)
    write_python(traceable(module), shape_of(plan.network), out, f"{plan.network['model']}, pruned.")
    return {"path": str(out / "model.py")}
