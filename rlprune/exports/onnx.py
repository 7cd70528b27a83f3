"""A network as an ONNX file that says what torch says: checked, run and compared before it is left behind."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.data.images import ImageSet
from rlprune.errors import UserError
from rlprune.exports.agreement import relative_error
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.utils.files import write_atomic
from rlprune.utils.modules import unwrapped
from rlprune.utils.shapes import Shape, example

TOLERANCE = 1e-4
"""The largest relative difference from torch's output that is put down to rounding."""
BATCHES = (1, 5)
"""Numbers of images with which a file is compared with torch; the network is traced with neither."""
INPUT, OUTPUT, IMAGES = "images", "logits", "batch"


def require_onnx() -> None:
    """Raise UserError unless all that ONNX needs is installed."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install 'rlprune[onnx]'")


def save_onnx(module: nn.Module, shape: Shape, path: Path) -> None:
    """Write a network as ONNX for any number of images; batch norms are folded into the convolutions before them.

    Args:
        module: in eval mode on the CPU; takes (N, C, H, W) float32 images, returns (N, classes) logits.
        shape: (C, H, W).
        path: the file.

    Raises:
        UserError: something is not installed, or the network cannot be said in ONNX.
    """
    require_onnx()
    try:
        program = torch.onnx.export(
            module,
            (example(shape, 2),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim(IMAGES)},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(_why(error)) from None
    assert program is not None
    write_atomic(path, program.save)


def _why(error: BaseException) -> str:
    """The innermost reason of an error of the exporter in one line."""
    reasons = [str(error)]
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
        reasons.append(str(error))
    for reason in reasons:
        if operator := re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", reason):
            return f"ONNX has no operator for {operator[1]}, which this network uses: replace it in the network's code"
    first = next(iter(reasons[-1].splitlines()), type(error).__name__)
    return f"this network cannot be exported to ONNX: {first}"


def open_session(model: Path | bytes, threads: int | None = None, device: str = "cpu") -> Any:
    """A network in ONNX Runtime.

    Args:
        model: an ONNX file, or what would be in one.
        threads: None for as many as the machine has cores.
        device: cpu, or cuda where ONNX Runtime was built for it.

    Raises:
        UserError: something is not installed, or this ONNX Runtime has no such device.
    """
    require_onnx()
    import onnxruntime

    kind = device.partition(":")[0]
    if not has_device(kind):
        raise UserError(f"this ONNX Runtime does not run on {device}: use --device cpu, or install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=[_provider(kind)])


def has_device(kind: str) -> bool:
    """Whether the ONNX Runtime that is installed was built for cpu or cuda."""
    require_onnx()
    import onnxruntime

    return _provider(kind) in onnxruntime.get_available_providers()


def _provider(kind: str) -> str:
    return f"{kind.upper()}ExecutionProvider"


def check_onnx(path: Path, module: nn.Module, shape: Shape) -> dict[str, Any]:
    """Whether a file is valid ONNX, takes and returns what it should, and computes what the network computes.

    Returns:
        `bytes`, `opset`, `inputs` and `outputs` (name -> shape), the `batches` compared and the largest absolute
        difference there, `max_error`.

    Raises:
        UserError: it does not; says by how much.
    """
    require_onnx()
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session, generator = open_session(path), torch.Generator().manual_seed(0)
    worst = 0.0
    for number in BATCHES:
        images = torch.randn(number, *shape, generator=generator)
        with torch.inference_mode():
            expected = module(images).float()
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        if found.shape != expected.shape:
            there, here = tuple(found.shape), tuple(expected.shape)
            raise UserError(f"the exported network returns {there} where torch returns {here}")
        relative = relative_error(found, expected)
        # A NaN is no small difference either.
        if not relative <= TOLERANCE:
            raise UserError(
                f"the exported network differs from torch by {relative:.2g} of its largest output, more than "
                f"{TOLERANCE:g}: it was not written"
            )
        worst = max(worst, float((found - expected).abs().max()))
    return {
        "bytes": path.stat().st_size,
        "opset": max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "inputs": {entry.name: list(entry.shape) for entry in session.get_inputs()},
        "outputs": {entry.name: list(entry.shape) for entry in session.get_outputs()},
        "batches": list(BATCHES),
        "max_error": worst,
    }


def write_onnx(module: nn.Module, shape: Shape, path: Path) -> dict[str, Any]:
    """`save_onnx` and `check_onnx`: a file that fails the check does not stay."""
    module, facts = unwrapped(module), dict[str, Any]()

    def write(temporary: Path) -> None:
        save_onnx(module, shape, temporary)
        facts.update(check_onnx(temporary, module, shape))

    write_atomic(path, write)
    return facts


def quantise(source: Path, path: Path, images: torch.Tensor) -> None:
    """Static quantisation to 8-bit integers by ONNX Runtime (Jacob et al., 2018, arXiv 1712.05877).

    Weights have a scale for each output channel and 7 of the 8 bits, without which the sums of CPUs before AVX-512
    VNNI saturate.

    Args:
        source: the float file.
        path: the file to write.
        images: (N, C, H, W) float32 by which the ranges of the activations are set.
    """
    require_onnx()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.chunks: Iterator[torch.Tensor] = iter(images.split(25))

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            chunk = next(self.chunks, None)
            return None if chunk is None else {INPUT: chunk.numpy()}

    def write(temporary: Path) -> None:
        # Shapes are inferred and what can be is fused, as ONNX Runtime asks for; the file is its own intermediate.
        quant_pre_process(str(source), str(temporary), skip_symbolic_shape=True)
        quantize_static(
            str(temporary),
            str(temporary),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    write_atomic(path, write)


def onnx_accuracy(path: Path, images: ImageSet, batch_size: int = 250) -> float:
    """The accuracy of a file on images, in [0, 1]."""
    session, right = open_session(path), 0
    for inputs, labels in images.batches(batch_size, device=torch.device("cpu")):
        logits = torch.from_numpy(session.run([OUTPUT], {INPUT: inputs.contiguous().numpy()})[0])
        right += int(CLASSIFICATION.right(logits, labels).sum())
    return right / len(images)
