"""`rlprune export --format onnx`."""

from pathlib import Path
from typing import Any

from rlprune.artifacts.pruned import open_folder, pruned_folder
from rlprune.config.commands import Export
from rlprune.errors import UserError
from rlprune.exports.onnx import onnx_accuracy, quantise, require_onnx, write_onnx
from rlprune.gating.masked import traceable
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import shape_of
from rlprune.workloads.pruned import open_pruned


def export_onnx(given: Export, progress: Progress) -> dict[str, Any]:
    """The pruned network of a run or a pruned folder as ONNX, with `int8` a quantised one beside it.

    Returns:
        `path` and what `rlprune.exports.onnx.check_onnx` found; with `int8` also `int8` (path and bytes) and both
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
    facts = write_onnx(traceable(module), shape_of(plan.network), out)
    result: dict[str, Any] = {"path": str(out), **facts}
    return result | _int8(given.source, out, progress) if given.int8 else result


def _int8(source: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Quantise by the calibration images of the run; the test images are looked at once for each file."""
    workload, _, _ = open_pruned(source, {"device": "cpu"}, progress)
    smaller = out.with_suffix(f".int8{out.suffix}")
    progress.stage("quantising")
    quantise(out, smaller, workload.calibration()[0].contiguous())
    progress.stage("evaluating on the test images")
    accuracies = {
        "float_accuracy": onnx_accuracy(out, workload.data.test),
        "int8_accuracy": onnx_accuracy(smaller, workload.data.test),
    }
    return {"int8": {"path": str(smaller), "bytes": smaller.stat().st_size}, **accuracies}
