"""Scores by one criterion, by several to choose from, or by one for each group."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from rlprune.errors import unknown
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import score_channels
from rlprune.tracing.selection import any_match
from rlprune.utils.criteria import parse_criteria


def score_by(text: str, module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int = 0) -> np.ndarray:
    """Score every channel of every group as a `--criterion` says; each criterion once.

    Args:
        text: see `rlprune.utils.criteria.parse_criteria`.
        module, graph, batch, seed: see `rlprune.methods.criteria.base.score_channels`.

    Returns:
        (all groups' channels,) scores, or (criteria, all groups' channels) where there are several to choose from.

    Raises:
        UserError: a criterion that does not apply, or a pattern that no group has.
    """
    criteria = parse_criteria(text)
    if criteria.several:
        return np.stack([score_channels(name, module, graph, batch, seed) for name in criteria.names])
    fixed = fixed_criteria(text, graph)
    if not fixed:
        return score_channels(criteria.names[0], module, graph, batch, seed)
    return score_each(fixed, module, graph, batch, seed)


def score_each(
    criteria: Mapping[str, str], module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int = 0
) -> np.ndarray:
    """(all groups' channels,) scores, those of every group by its own criterion.

    Args:
        criteria: group -> criterion, for all groups.
        module, graph, batch, seed: as above.
    """
    names = list(dict.fromkeys(criteria.values()))
    scores = np.stack([score_channels(name, module, graph, batch, seed) for name in names])
    places = [names.index(criteria[group.name]) for group in graph.groups]
    mixed: np.ndarray = scores[np.repeat(places, graph.sizes), np.arange(scores.shape[1])]
    return mixed


def fixed_criteria(text: str, graph: Graph) -> dict[str, str]:
    """Group -> criterion where a `--criterion` names them by patterns; otherwise none.

    Raises:
        UserError: a pattern that no group has.
    """
    criteria = parse_criteria(text)
    if not criteria.patterns:
        return {}
    layers = {group.name: (group.name, *graph.layers_of(group)) for group in graph.groups}
    for pattern, _ in criteria.patterns:
        if not any(any_match(mine, pattern) for mine in layers.values()):
            raise unknown("group in --criterion", pattern, dict.fromkeys(sum(layers.values(), ())))
    return {
        name: next((known for pattern, known in criteria.patterns if any_match(mine, pattern)), criteria.names[-1])
        for name, mine in layers.items()
    }


def criteria_of(text: str, graph: Graph, plan: np.ndarray) -> dict[str, str]:
    """Group -> criterion of a plan, (groups + columns,) of a search; none where one is for all groups."""
    names = parse_criteria(text).names
    if len(names) == 1:
        return fixed_criteria(text, graph)
    chosen = plan[len(graph.groups) :][: len(graph.groups)]
    if not len(chosen):
        return dict.fromkeys((group.name for group in graph.groups), names[0])
    return {group.name: names[number] for group, number in zip(graph.groups, chosen.tolist(), strict=True)}
