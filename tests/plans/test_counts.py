import numpy as np

from rlprune.graph.structure import Graph, Group
from rlprune.plans.counts import counts_to_text, not_in, plan_key, scores_of, text_to_key, top_mask


def test_plans_that_are_not_remembered_come_once_and_in_their_order() -> None:
    plans = [np.array(counts) for counts in ([3, 1], [2, 2], [3, 1], [1, 1])]
    found = not_in({(2, 2): "known"}, plans)
    assert [counts.tolist() for counts in found] == [[3, 1], [1, 1]]
    assert not_in({(3, 1), (2, 2), (1, 1)}, plans) == []


def test_a_key_survives_as_text() -> None:
    key = plan_key(np.array([64, 7]))
    assert key == (64, 7)
    assert counts_to_text(key) == "64 7"
    assert text_to_key("64 7") == key


def test_channels_that_a_plan_of_several_criteria_keeps() -> None:
    """Groups of four, three and two channels: the first by its second criterion, the second by its third."""
    graph = Graph(
        (Group("a", 4, 0, ("a",), ()), Group("b", 3, 4, ("b",), ()), Group("c", 2, 7, ("c",), ())), (), (), (), {}, {}
    )
    scores = np.array([
        [4.0, 3.0, 2.0, 1.0, 3.0, 2.0, 1.0, 1.0, 2.0],
        [1.0, 3.0, 2.0, 4.0, 1.0, 1.0, 9.0, 5.0, 4.0],
        [9.0, 0.0, 0.0, 0.0, 1.0, 3.0, 2.0, 0.0, 1.0],
    ])  # fmt: skip
    plan = np.array([2, 1, 1, 1, 2, 0])
    kept = [False, True, False, True, False, True, False, False, True]
    assert top_mask(graph, plan, scores).tolist() == kept
    assert scores_of(graph, plan, scores).tolist() == [1, 3, 2, 4, 1, 3, 2, 1, 2]
    # Kept counts alone are by the first.
    assert top_mask(graph, plan[:3], scores).tolist() == top_mask(graph, plan[:3], scores[0]).tolist()
    # What stands behind the criteria has no part in it.
    assert top_mask(graph, np.append(plan, [8, 8, 8]), scores).tolist() == kept
