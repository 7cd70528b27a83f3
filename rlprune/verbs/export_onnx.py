"""`rlprune export --format onnx`."""

from pathlib import Path
from typing import Any

from rlprune.config import Export
from rlprune.errors import UserError
from rlprune.onnx_export import onnx_accuracy, quantise, require_onnx, write_onnx
from rlprune.problem import open_pruned
from rlprune.progress import Progress
from rlprune.pruner import open_folder, pruned_folder
from rlprune.traceable import traceable


def export_onnx(given: Export, progress: Progress) -> dict[str, Any]:
    """The pruned network of a run or a pruned folder as ONNX, with `int8` a quantised one beside it.

    Returns:
        `path` and what `rlprune.onnx_export.check_onnx` found; with `int8` also `int8` (path and bytes) and both
        accuracies on the test images.

    Raises:
        UserError: whatever cannot be used, or the file does not compute what the network computes.
    """
    require_onnx()
    folder = pruned_folder(given.source)
    out = given.out or folder / "model.onnx"
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file such as {out / 'model.onnx'}")
    progress.stage("exporting the network")
    module, plan = open_folder(folder)
    facts = write_onnx(traceable(module), plan.network["image_size"], out)
    result: dict[str, Any] = {"path": str(out), **facts}
    return result | _int8(given.source, out, progress) if given.int8 else result


def _int8(source: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Quantise by the calibration images of the run; the test images are looked at once for each file."""
    problem, _, _ = open_pruned(source, {"device": "cpu"}, progress)
    smaller = out.with_suffix(f".int8{out.suffix}")
    progress.stage("quantising")
    quantise(out, smaller, problem.calibration()[0].contiguous())
    progress.stage("evaluating on the test images")
    accuracies = {
        "float_accuracy": onnx_accuracy(out, problem.data.test),
        "int8_accuracy": onnx_accuracy(smaller, problem.data.test),
    }
    return {"int8": {"path": str(smaller), "bytes": smaller.stat().st_size}, **accuracies}
