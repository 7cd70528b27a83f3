"""The state dict that is meant, out of whatever a training script has put around it and before its names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import UserError
from rlprune.utils.safe_load import Foreign

USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""What training scripts call the weights, in the order in which they are looked for."""
DEPTH = 3
"""Mappings around a state dict, at most."""
COUNTER, EXTRA = "num_batches_tracked", "_extra_state"
"""Batch norm's counter, which does not matter to a forward pass and which older files lack, and what a module keeps
beside its tensors, in whatever form."""
CONVERT = "in the program that wrote it, save the weights alone: torch.save(model.state_dict(), path)"
State = dict[str, Any]
"""Tensors by name, and extra states."""


def is_extra(name: str) -> bool:
    """Whether an entry of a state dict is what a module keeps beside its tensors."""
    return name.rpartition(".")[2] == EXTRA


def tensors_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict; a module may keep anything beside them (`get_extra_state`)."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def first_state_dict(content: object, path: Path) -> State:
    """The first state dict in a file, by the names that are usual.

    Raises:
        UserError: there is none.
    """
    return next(iter(_state_dicts(content, path).values()))


def find_state_dict(content: object, required: list[str], path: Path) -> State:
    """The one state dict in a file that holds all that a network needs, under the names that the network has.

    Other networks beside it in the file, such as a teacher or a loss with weights, are left out.

    Args:
        content: what is in the file.
        required: the names that the network cannot do without.
        path: what messages call the file.

    Returns:
        The state dict; the likeliest one where none has all names.

    Raises:
        UserError: there is none, or there are several networks of these names and it cannot be told which is meant.
    """
    found = _state_dicts(content, path)
    fitting = {place: by for place, state in found.items() if (by := _prefixes(state, required))}
    usual = [place for place in fitting if all(part in USUAL for part in place)]
    places = usual[:1] or list(fitting)
    named = [".".join([*place, prefix]).rstrip(".") or "the top" for place in places for prefix in fitting[place]]
    if len(named) > 1:
        raise UserError(
            f"the checkpoint {path} holds several networks that fit, at {', '.join(named)}: save the weights of the "
            "one that is meant alone, as a state dict"
        )
    if not named:
        return _without_shared_prefixes(next(iter(found.values())), required)
    (prefix,), state = fitting[places[0]], found[places[0]]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _state_dicts(content: object, path: Path) -> dict[tuple[str, ...], State]:
    """Every state dict by its place, the usual ones first."""
    found = dict(_walk(content, ()))
    if found:
        return dict(sorted(found.items(), key=lambda entry: [_rank(part) for part in entry[0]]))
    if isinstance(content, Foreign):
        raise UserError(
            f"the checkpoint {path} is a pickled {content.path}; only weights are loaded, since unpickling anything "
            f"else could run code: {CONVERT}"
        )
    empty = isinstance(content, Mapping) and (not content or any(content.get(name) == {} for name in USUAL))
    what = "weights" if empty else "state dict of names and tensors"
    raise UserError(f"the checkpoint {path} holds no {what}: {CONVERT}")


def _rank(name: str) -> int:
    return USUAL.index(name) if name in USUAL else len(USUAL)


def _walk(content: object, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], State]]:
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    tensors = tensors_of(content)
    if tensors and all(key in tensors or is_extra(key) for key in content):
        yield place, dict(content)
    elif len(place) < DEPTH:
        for key, inner in content.items():
            yield from _walk(inner, (*place, key))


def _prefixes(state: State, required: list[str]) -> list[str]:
    """What may stand before every name that is required, such as `module.`; where nothing has to, only nothing."""
    if not required or all(name in state for name in required):
        return [""]
    first = max(required, key=len)
    before = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    return [prefix for prefix in before if all(prefix + name in state for name in required)]


def _without_shared_prefixes(state: State, required: list[str]) -> State:
    """Names without what DataParallel and torch.compile put before all of them, to be told what else is wrong."""
    for prefix in ("module.", "_orig_mod."):
        shared = all(key.startswith(prefix) for key in state)
        if shared and not all(key.startswith(prefix) for key in required):
            return _without_shared_prefixes({key.removeprefix(prefix): state[key] for key in state}, required)
    return state
