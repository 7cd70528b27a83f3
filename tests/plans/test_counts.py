import numpy as np

from rlprune.plans.counts import counts_to_text, not_in, plan_key, text_to_key


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
