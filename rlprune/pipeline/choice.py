"""Which plan a search under one budget ends on: what it has found or a simple one, as brief fine-tunings say.

The lowest one-shot loss need not recover best, and a plan that nobody has searched for may be ahead in the end; see
`docs/search.md` for what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rlprune.agents.search.setup import Prepared
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.finetuned import FineTunedEvaluator
from rlprune.methods.allocators.additive_dp import additive_optimum
from rlprune.methods.allocators.base_plans import KINDS, number_of_kinds
from rlprune.plans.counts import plan_key

PART = 3
"""A brief fine-tuning takes at most one part in so many of the final one: there are about four plans to choose from."""


def tuner_for(tuners: Sequence[FineTunedEvaluator], images: int) -> FineTunedEvaluator | None:
    """The longest of some tuners that is still brief; None where even the shortest takes too long for a choice.

    Args:
        tuners: the shortest first.
        images: that the final fine-tuning sees in all its epochs.
    """
    brief = [tuner for tuner in tuners if PART * tuner.epochs * len(tuner.images) <= images]
    return brief[-1] if brief else None


def candidates(name: str, counts: np.ndarray, prepared: Prepared, projector: BudgetProjector) -> dict[str, np.ndarray]:
    """Name -> plan: the base plans, the optimum of the additive model, and of what was found.

    Each plan is there once, under the first of its names; one that the budget no longer admits is projected anew.

    Args:
        name: of the search.
        counts: the plan that it has found.
        prepared: base plans and sensitivities under the only budget.
        projector: budget and cost as they are now.
    """
    kinds = [kind.replace("rule", "sensitivity") for kind in KINDS[: number_of_kinds(projector.budget)]]
    spec, found = replace(prepared.specs[0], projector=projector), dict[tuple[int, ...], tuple[str, np.ndarray]]()
    plans = dict(zip((*kinds, "without blocks"), prepared.starts[0], strict=False))
    optimum = additive_optimum(prepared.sensitivity, projector)
    plans |= {"additive-dp": spec.columns.complete(optimum, len(optimum)), name: counts}
    for each, plan in plans.items():
        landed = plan if projector.fits(plan[None])[0] else spec.finish(plan[None].astype(float))[0]
        found.setdefault(plan_key(landed), (each, landed))
    return dict(found.values())


def best_first(losses: Mapping[str, float]) -> list[dict[str, object]]:
    """Names and losses as a result tells them."""
    return [{"plan": name, "loss": loss} for name, loss in sorted(losses.items(), key=lambda item: item[1])]
