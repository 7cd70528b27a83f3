"""Evolution with (μ + λ) selection (Beyer and Schwefel, Evolution strategies, 2002) around the sensitivity rule's plan.

A genome holds the logarithm of every group's multiplier on the base plan. Tournaments choose two parents, every gene is
taken from one of them (uniform crossover), and Gaussian noise is added.
"""

import numpy as np

from rlprune.agents.contest import Entry, around, base_plan, rounds
from rlprune.allocators.uniform import uniform

PARENTS = 12
CHILDREN = 12
TOURNAMENT = 3
SIGMA = 0.3


def run(entry: Entry) -> str:
    """Evolve until the evaluations are spent."""
    rng = np.random.default_rng(entry.seed)
    base = base_plan(entry)
    genomes = np.stack([np.zeros(len(base)), np.log(uniform(entry.lander) / base)])
    drawn = rng.normal(0, SIGMA, (PARENTS - len(genomes), len(base)))
    genomes, losses = _evaluated(entry, base, np.concatenate([genomes, drawn]))
    for _ in rounds(entry):
        children, found = _evaluated(entry, base, offspring(genomes, losses, rng))
        genomes, losses = np.concatenate([genomes, children]), np.concatenate([losses, found])
        best = np.argsort(losses, kind="stable")[:PARENTS]
        genomes, losses = genomes[best], losses[best]
    return ""


def _evaluated(entry: Entry, base: np.ndarray, genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genomes and their losses, as far as the evaluations go."""
    losses = entry.measure(around(entry.lander, base, genomes))
    return genomes[: len(losses)], losses


def offspring(genomes: np.ndarray, losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(`CHILDREN`, groups) new genomes from (parents, groups) genomes and their (parents,) losses."""
    rivals = rng.integers(len(genomes), size=(CHILDREN, 2, TOURNAMENT))
    winners = np.take_along_axis(rivals, losses[rivals].argmin(axis=2)[..., None], axis=2)[..., 0]
    mother, father = genomes[winners].swapaxes(0, 1)
    children = np.where(rng.random(mother.shape) < 0.5, mother, father)
    return children + rng.normal(0, SIGMA, children.shape) * (rng.random(children.shape) < 0.5)
