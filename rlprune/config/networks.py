"""A search over several networks, as its settings name them: each of them alone, and what it is called."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlprune.config.commands import Search
from rlprune.config.resolve import as_dict, resolve
from rlprune.errors import UserError
from rlprune.utils.arguments import split_outside


def each_network(given: Search) -> list[Search]:
    """The settings of a search for each of its networks alone.

    Args:
        given: `model` names networks with commas; `checkpoint` has a file for each in the same order, or there is none;
            `model_args` are for all of them, or for one after the other with semicolons in between.

    Raises:
        UserError: not as many checkpoints or arguments as networks, a name that is missing, or a network given twice.
    """
    models = [name.strip() for name in given.model.split(",")]
    if len(models) == 1:
        return [given]
    if not all(models):
        raise UserError(f"--model {given.model} has a comma with no name beside it: expected such as resnet20,vgg16")
    files = str(given.checkpoint).split(",") if given.checkpoint else [None] * len(models)
    words = split_outside(given.model_args, ";") if given.model_args else [None]
    checkpoints = _one_each("--checkpoint", files, models)
    arguments = _one_each("--model-args", words * len(models) if len(words) == 1 else words, models)
    found = [
        replace(given, model=model, checkpoint=Path(file) if file else None, model_args=args)
        for model, file, args in zip(models, checkpoints, arguments, strict=True)
    ]
    for place, one in enumerate(found):
        if one in found[:place]:
            raise UserError(f"--model {given.model} names {one.model} twice: give other weights or arguments, or once")
    return found


def _one_each(option: str, parts: Sequence[str | None], models: list[str]) -> list[str | None]:
    if len(parts) != len(models):
        raise UserError(f"{option} has {len(parts)} parts for {len(models)} networks, {', '.join(models)}")
    return [part and part.strip() for part in parts]


def folder_names(networks: list[Search]) -> list[str]:
    """What the folder of every network of a search is called: its model, and a number where that is not enough."""
    names: list[str] = []
    for one in networks:
        plain = Path(one.model.replace(":", "_")).name
        names.append(plain if plain not in names else f"{plain}-{len(names) + 1}")
    return names


def settings_for(settings: Mapping[str, Any], model: str | None, model_args: str | None) -> dict[str, Any]:
    """Of a finished search's settings, those for the network that is meant.

    Args:
        settings: as a policy keeps them.
        model, model_args: as they are given, or None.

    Returns:
        The settings for the network of this name (of several of the same name the one with these arguments), or for the
        first one where none is called so.

    Raises:
        UserError: there are several networks, and none is named.
    """
    networks = each_network(resolve(Search, settings))
    if len(networks) > 1 and model is None:
        names = ", ".join(dict.fromkeys(one.model for one in networks))
        raise UserError(f"--model is missing: the policy was trained on {names}, say which network to walk")
    called = [one for one in networks if model in (None, one.model)]
    alike = [one for one in called if model_args in (None, one.model_args)]
    return as_dict((*alike, *called, *networks)[0])
