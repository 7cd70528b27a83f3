"""Weights in and out of files, without unpickling anything but tensors."""

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.models.state_dicts import (
    CONVERT,
    COUNTER,
    State,
    find_state_dict,
    first_state_dict,
    is_extra,
    tensors_of,
)
from rlprune.utils.files import write_atomic
from rlprune.utils.finite import require_finite_weights
from rlprune.utils.modules import unwrapped
from rlprune.utils.safe_load import load_tensors

PRUNED = (
    "it holds a pruned network, and what is asked for is the dense one's checkpoint; a pruned network can be trained "
    "further by `rlprune finetune`, and cut again from Python: rlprune.load, build_graph, prune"
)


def load_checkpoint(
    module: nn.Module, path: str | os.PathLike[str], *, name: str = "model", head: str | None = None
) -> bool:
    """Copy the weights of a file into ``module``, after checking that all of them fit.

    Args:
        module: receives the weights, in its own dtype and on its own device.
        path: a safetensors file or a ``torch.save`` file of a state dict, bare or within a training checkpoint.
        name: what messages call ``module``.
        head: a layer that keeps the weights that it has where those of the file are of another size, or missing.

    Returns:
        Whether the weights of the head come from the file, too.

    Raises:
        UserError: no such file, no weights in it, names or shapes other than the module's, NaN or infinite values,
            negative variances, or several networks that fit. Nothing has been copied then.
    """
    path, module = Path(path), unwrapped(module)
    whole = module.state_dict()
    expected = {key: tensor for key, tensor in tensors_of(whole).items() if not is_extra(key)}
    own = {key for key in expected if head is not None and key.rpartition(".")[0] == head}
    required = [key for key in expected if key not in own and key.rpartition(".")[2] != COUNTER]
    found = find_state_dict(_read(path), required, path)
    given = {key: tensor for key, tensor in tensors_of(found).items() if not is_extra(key)}
    taken = all(_form(given.get(key)) == _form(expected[key]) for key in own)
    if not taken:
        given, expected = (
            {key: each[key] for key in each if key.rpartition(".")[0] != head} for each in (given, expected)
        )
    _check_fit(given, expected, path, name)
    require_finite_weights(given, path)
    state: State = {key: tensor.to(expected[key].dtype) for key, tensor in given.items()}
    extra = {key: value for key, value in found.items() if key in whole and is_extra(key)}
    # Not strict, for num_batches_tracked and extra states alone: everything else has been checked.
    module.load_state_dict(state | extra, strict=False)
    return taken


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file by name, whatever network they are of.

    Raises:
        UserError: no such file, no weights in it, NaN or infinite values, negative variances.
    """
    found = tensors_of(first_state_dict(_read(Path(path)), Path(path)))
    require_finite_weights(found, Path(path))
    return found


def save_weights(module_or_state: nn.Module | Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write the tensors of a state dict as safetensors; the file appears whole or not at all.

    Args:
        module_or_state: a network or its state dict.
        path: the file, replaced where there is one.
    """
    path = Path(path)
    given = module_or_state
    state = unwrapped(given).state_dict() if isinstance(given, nn.Module) else given
    # Clones, since safetensors refuses tensors that share memory, as tied weights do.
    copies = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in tensors_of(state).items()
    }
    # Not save_file, which makes files that nobody but their owner can read.
    write_atomic(Path(path), lambda part: part.write_bytes(save(copies)))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all names, dtypes, shapes and values, in order of names.

    What is no tensor, as a module may keep it in its state dict, does not count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(state).items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _read(path: Path) -> object:
    if not path.is_file():
        problem = "is a directory" if path.is_dir() else "does not exist"
        fix = PRUNED if (path / "plan.json").is_file() else "give a .safetensors or torch.save file"
        raise UserError(f"the checkpoint {path} {problem}: {fix}")
    if path.stat().st_size == 0:
        raise UserError(f"the checkpoint {path} is empty")
    try:
        if path.suffix == ".safetensors" or _is_safetensors(path):
            return load_file(path)
        return load_tensors(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the checkpoint {path} holds more than tensors and plain containers, or is damaged; only weights are "
            f"loaded, since unpickling anything else could run code: {CONVERT}"
        ) from error
    except UserError:
        raise
    # Bytes that are no checkpoint make the readers fail in any way at all.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"the checkpoint {path} is truncated or no checkpoint: {reason}") from error


def _is_safetensors(path: Path) -> bool:
    """Eight bytes with the length of a JSON header, then the header."""
    with path.open("rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and length <= path.stat().st_size


def _check_fit(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, name: str) -> None:
    keys = [key for key in {**expected, **given} if not (key in expected and key.rpartition(".")[2] == COUNTER)]
    wrong = [key for key in keys if _form(given.get(key)) != _form(expected.get(key))]
    if not wrong:
        return
    lines = [
        f"  {key}: checkpoint has {_form(given.get(key))}, {name} expects {_form(expected.get(key))}"
        for key in wrong[:3]
    ]
    more = f"\n  and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    layers = {key.rpartition(".")[0] for key in wrong}
    # Networks are usually alike but for the number of classes.
    last = len(layers) == 1 and all(
        key in given and key in expected and given[key].shape[1:] == expected[key].shape[1:] for key in wrong
    )
    fix = f"\nif {layers.pop()} is its last layer, --new-head gives it a fresh one for the classes here" if last else ""
    if (path.parent / "plan.json").is_file():
        fix = f"\n{PRUNED}"
    raise UserError(f"the checkpoint {path} does not fit {name}:\n" + "\n".join(lines) + more + fix)


def _form(tensor: Tensor | None) -> str:
    """What has to agree: the shape, and whether the numbers are floating point, of whatever precision."""
    if tensor is None:
        return "nothing"
    return f"{tuple(tensor.shape)}" if tensor.is_floating_point() else f"{tuple(tensor.shape)} {tensor.dtype}"
