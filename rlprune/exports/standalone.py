"""A pruned network without rlprune: as a program of torch.export, or as a Python file that needs torch alone."""

import math
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export, load, save

from rlprune.errors import UserError
from rlprune.exports.agreement import relative_error
from rlprune.models.checkpoint import save_weights
from rlprune.utils.files import require_writable, write_atomic, write_text
from rlprune.utils.modules import named_tensors, unwrapped
from rlprune.utils.shapes import Shape, example

TOLERANCE = 1e-5
"""The largest relative difference between outputs."""
BATCHES = (1, 2, 5)
TEMPLATE = Path(__file__).with_name("standalone.py.txt")
WEIGHTS = "model.safetensors"


def write_program(module: nn.Module, shape: Shape, path: Path) -> None:
    """Write a network as torch.export's `.pt2`, for any number of images, and check what comes back.

    Args:
        module: the network in eval mode on the CPU.
        shape: (C, H, W) of an image.
        path: the file.

    Raises:
        UserError: the network cannot be exported, or computes something else afterwards.
    """
    module = unwrapped(module)
    program = _exported(module, shape)

    def write(part: Path) -> None:
        save(program, part)
        _check(load(part).module(), module, shape)

    write_atomic(path, write)


def write_python(module: nn.Module, shape: Shape, folder: Path, title: str) -> None:
    """Write a network as `model.py` and `model.safetensors`, which need nothing but torch; checks what they compute.

    Args:
        module: the network in eval mode on the CPU.
        shape: (C, H, W) of an image.
        folder: where they go; in a pruned folder the weights are the file that is there already.
        title: what the file says it is.

    Raises:
        UserError: the network cannot be exported, or computes something else afterwards.
    """
    module = unwrapped(module)
    code = _code(_exported(module, shape), title, shape)
    require_writable(folder)
    with TemporaryDirectory(dir=folder, prefix=".") as trial:
        write_text(Path(trial) / "model.py", code)
        save_weights(named_tensors(module), Path(trial) / WEIGHTS)
        _check(_imported(Path(trial) / "model.py").load(), module, shape)
        for name in (WEIGHTS, "model.py"):
            (Path(trial) / name).replace(folder / name)


def _exported(module: nn.Module, shape: Shape) -> ExportedProgram:
    try:
        # Two images, for one is a number that torch.export writes into the program.
        return export(module, (example(shape, 2),), dynamic_shapes=({0: Dim("batch")},))
    # What it cannot follow makes it fail in any way at all.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torch.export cannot follow this network: {reason}") from error


def _check(again: nn.Module, module: nn.Module, shape: Shape) -> None:
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:
        images = torch.randn(batch, *shape, generator=generator)
        with torch.no_grad():
            expected, given = module(images), again(images)
        apart = relative_error(given, expected)
        if not apart <= TOLERANCE:
            raise UserError(
                f"what was written differs from the network by {apart:.2g} of its largest output for {batch} images: "
                "not kept"
            )


def _imported(path: Path) -> Any:
    spec = spec_from_file_location("_standalone", path)
    assert spec is not None
    assert spec.loader is not None
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _code(program: ExportedProgram, title: str, shape: Shape) -> str:
    """The text of `model.py`."""
    images, names, constants = "", dict[str, str](), list[str]()
    for entry in program.graph_signature.input_specs:
        if entry.target is None:
            images = entry.arg.name
        elif entry.target in program.constants and entry.target not in program.graph_signature.non_persistent_buffers:
            value = program.constants[entry.target]
            constants.append(
                f"        self.register_buffer({entry.arg.name!r}, torch.tensor({value.tolist()}, dtype={value.dtype}))"
            )
            names[entry.arg.name] = f"self.{entry.arg.name}"
        else:
            names[entry.arg.name] = f"T[{entry.target!r}]"
    lines = _Writer(names, images).lines(program.graph)
    title = title.replace("\\", "/").replace('"', "'")
    sizes = ", ".join(map(str, shape))
    body = {"title": title, "torch": torch.__version__.partition("+")[0], "shape": sizes, "images": images}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        body, constants="\n".join(["", *constants]), lines="\n".join(f"        {line}" for line in lines)
    )


class _Writer:
    """Writes the operations of a graph as Python, one a line.

    Args:
        names: what its parameters, buffers and constants are called.
        images: the name of its input.
    """

    def __init__(self, names: dict[str, str], images: str) -> None:
        self.names = names
        self.images = images
        self.staying = {*names, images}

    def lines(self, graph: fx.Graph) -> list[str]:
        """All operations; a result is let go of after its last use, as memory would otherwise hold them all."""
        last: dict[fx.Node, fx.Node] = {}
        for node in graph.nodes:
            last |= dict.fromkeys(node.all_input_nodes, node)
        found: list[str] = []
        for node in graph.nodes:
            if node.op == "placeholder":
                continue
            if node.op == "output":
                # Tensors that it changes come before what it returns.
                return [*found, f"return {self.value(node.args[0][-1])}"]
            arguments = [self.value(each) for each in node.args]
            arguments += [f"{key}={self.value(each, key)}" for key, each in node.kwargs.items()]
            spent = [old.name for old in node.all_input_nodes if last[old] is node and old.name not in self.staying]
            free = f"; del {', '.join(spent)}" if spent else ""
            found.append(f"{node.name} = {_function(node)}({', '.join(arguments)}){free}")
        raise AssertionError("a graph without an output")

    def value(self, given: Any, key: str = "") -> str:
        """An argument."""
        if isinstance(given, fx.Node):
            return self.names.get(given.name, given.name)
        if isinstance(given, (list, tuple)):
            inner = ", ".join(self.value(each) for each in given)
            return f"[{inner}]" if isinstance(given, list) else f"({inner},)"
        # Where the images are is where everything happens, wherever the network was exported.
        if isinstance(given, torch.device):
            return f"{self.images}.device"
        if isinstance(given, float) and not math.isfinite(given):
            return f'float("{given}")'
        return repr(given)


def _function(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace in ("aten", "prims"):
        return f"torch.ops.{target}"
    name, home = getattr(target, "__name__", str(target)), getattr(target, "__module__", "")
    if node.op == "call_function" and home in ("_operator", "math", "torch"):
        return f"{home.removeprefix('_')}.{name}"
    raise UserError(f"the network's operation {name} cannot be written as Python: use --format torch-export")
