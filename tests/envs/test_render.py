"""The table of an episode, line by line."""

import numpy as np
from costs import chain, timed
from toys import make_spec

from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.render import episode_table


def test_under_way() -> None:
    """Dense: 152 MACs and 178 parameters. 4 1 1 costs 4 + 4 + 1 + 2 = 11 MACs and, with biases, 8 + 5 + 2 + 4 = 19."""
    spec = make_spec(groups=("stem", "blocks.0.conv", "blocks.1.conv"))
    assert episode_table(spec, np.array([4, 1, 1]), 1).splitlines() == [
        "group          channels  kept   ratio",
        "stem                  8     4  50.0 %",
        "blocks.0.conv         8  next       -",
        "blocks.1.conv         8     -       -",
        "",
        "MACs: 7.2 % of 50.0 % allowed",
        "parameters: 10.7 %",
        "groups without a number count at their smallest",
    ]


def test_at_the_end_and_without_names() -> None:
    """6 5 5 costs 6 + 30 + 25 + 10 = 71 MACs and 12 + 35 + 30 + 12 = 89 parameters."""
    assert episode_table(make_spec("macs=0.5,params=0.6"), np.array([6, 5, 5]), 3).splitlines() == [
        "group    channels  kept   ratio",
        "group 0         8     6  75.0 %",
        "group 1         8     5  62.5 %",
        "group 2         8     5  62.5 %",
        "",
        "MACs: 46.7 % of 50.0 % allowed",
        "parameters: 50.0 % of 60.0 % allowed",
    ]


def test_a_bounded_latency_has_a_line() -> None:
    """Here it is the share of the parameters: 3 a + a b + 2 b of 6 8."""
    projector = BudgetProjector(timed(chain([6, 8], [1, 1])), parse_budget("latency=0.5"))
    spec = make_spec()
    walked = type(spec)(projector, spec.features, np.array([6.0, 8.0]), 0.0, np.zeros(2))
    share = 100 * (3 * 3 + 3 * 4 + 2 * 4) / (3 * 6 + 6 * 8 + 2 * 8)
    assert episode_table(walked, np.array([3, 4]), 2).splitlines()[-1] == f"latency: {share:.1f} % of 50.0 % allowed"
