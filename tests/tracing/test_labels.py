"""Labels against partitions derived by hand, and against a union-find that shares no code with them."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlprune.tracing.labels import ALWAYS, Ties, always, distinct, first, varies, varying

LABELS = 12
Pairs = list[tuple[int, int]]


def classes(ties: Ties, labels: Tensor) -> list[str]:
    """One letter a channel, in the order of appearance; a dash for what is never cut."""
    channels = ties.resolve()[0][labels.numpy()].ravel().tolist()
    letters = {channel: chr(ord("a") + number) for number, channel in enumerate(dict.fromkeys(filter(None, channels)))}
    return [letters.get(channel, "-") for channel in channels]


def table(ties: Ties, labels: Tensor) -> list[str]:
    """The same, a string for every row."""
    width = labels.shape[-1]
    letters = "".join(classes(ties, labels))
    return [letters[start : start + width] for start in range(0, len(letters), width)]


def union(pairs: Pairs) -> list[int]:
    """The smallest label that hangs together with each; the slow way."""
    root = list(range(LABELS + 1))
    for _ in root:
        for one, other in pairs:
            root[one] = root[other] = min(root[one], root[other])
    return root


def test_always_takes_no_memory() -> None:
    labels = always((2, 3, 4))
    assert labels.shape == (2, 3, 4)
    assert labels.stride() == (0, 0, 0)
    assert labels.dtype == torch.int64
    assert not labels.any()
    assert ALWAYS == 0


@pytest.mark.parametrize(
    ("labels", "dims"),
    [
        (torch.tensor(3), []),
        (torch.tensor([3]), []),
        (torch.tensor([3, 3]), []),
        (torch.tensor([3, 4]), [0]),
        (torch.arange(6).view(2, 3), [0, 1]),
        (torch.arange(3).expand(2, 3), [1]),
        (torch.arange(2)[:, None].expand(2, 3), [0]),
        (torch.tensor([[1, 1], [1, 2]]), [0, 1]),
        (torch.arange(3).view(1, 3, 1, 1).expand(4, 3, 2, 2), [1]),
        (torch.zeros(0, 3, dtype=torch.int64), []),
    ],
)
def test_varying_dimensions(labels: Tensor, dims: list[int]) -> None:
    assert varying(labels) == dims
    assert [varies(labels, dim) for dim in range(labels.dim())] == [dim in dims for dim in range(labels.dim())]


def test_first() -> None:
    labels = torch.arange(24).view(2, 3, 4)
    assert first(labels, []).equal(labels)
    assert first(labels, [1]).equal(labels[:, :1])
    assert first(labels, [0, 2]).flatten().tolist() == [0, 4, 8]
    assert first(torch.zeros(2, 0), [0, 1]).shape == (1, 0)


def test_distinct_channels() -> None:
    labels = torch.tensor([3, ALWAYS, 1, 3]).view(1, 4, 1).expand(2, 4, 5)
    assert distinct(labels).tolist() == [1, 3]
    assert distinct(always((2, 2))).tolist() == []
    assert distinct(torch.tensor(4)).tolist() == [4]


def test_fresh_labels_are_nobodys() -> None:
    ties = Ties()
    one, other, number = ties.fresh(3), ties.fresh(2, 2), ties.fresh()
    assert [one.tolist(), other.tolist(), number.tolist()] == [[1, 2, 3], [[4, 5], [6, 7]], 8]
    assert ties.number == 9
    assert classes(ties, torch.arange(9)) == list("-abcdefgh")


def test_ties() -> None:
    ties = Ties()
    a, b, c = ties.fresh(3), ties.fresh(3), ties.fresh(3)
    ties.tie(a, b.flip(0))
    ties.tie(b[:2], c[1:])
    assert classes(ties, torch.stack([a, b, c])) == list("abccbadcb")


def test_equal_labels_are_tied_already() -> None:
    ties = Ties()
    a = ties.fresh(3)
    ties.tie(a, a, "never")
    ties.tie(always((2,)), always((2,)), "never")
    assert classes(ties, a) == list("abc")
    assert ties.resolve()[1] == {}


def test_whether_a_tie_was_new() -> None:
    ties = Ties()
    a, b = ties.fresh(2), ties.fresh(2)
    assert ties.tie(a, b)
    assert not ties.tie(a, a)
    assert not ties.tie(a, always((2,)), "stays")
    assert ties.tie(a, torch.tensor([ALWAYS, 4]), "one stays")


def test_ties_of_feature_maps() -> None:
    """What is the same along a dimension is looked at once there, but only where both are."""
    ties = Ties()
    a, b, row = ties.fresh(3), ties.fresh(3), ties.fresh(2)
    ties.tie(a.view(1, 3, 1).expand(4, 3, 2), b.view(1, 3, 1).expand(4, 3, 2))
    assert classes(ties, torch.cat([a, b])) == list("abcabc")
    ties.tie(a.view(1, 3, 1).expand(4, 3, 2), row.expand(4, 3, 2))
    assert classes(ties, torch.cat([a, row])) == list("aaaaa")


def test_many_ties_at_once() -> None:
    ties = Ties()
    a, b = ties.fresh(100), ties.fresh(100)
    ties.tie(a.repeat_interleave(50), b.repeat_interleave(50))
    channels = ties.resolve()[0]
    assert np.array_equal(channels[a], channels[b])
    assert len(set(channels[a].tolist())) == 100


def test_what_is_tied_to_always_stays_and_says_why() -> None:
    ties = Ties()
    a, b = ties.fresh(3), ties.fresh(3)
    ties.tie(a, torch.tensor([ALWAYS, 2, ALWAYS]), "of the input")
    ties.tie(b, a)
    assert classes(ties, torch.cat([a, b])) == list("-a--a-")
    assert ties.resolve()[1] == dict.fromkeys([1, 3, 4, 6], "of the input")


def test_the_first_reason_counts() -> None:
    ties = Ties()
    a = ties.fresh(4)
    ties.keep(a[:2], "one")
    ties.keep(a[1:3], "other")
    assert ties.resolve()[1] == {1: "one", 2: "one", 3: "other"}
    assert classes(ties, a) == list("---a")


def test_keeping_labels_that_are_repeated_and_those_that_stay_anyway() -> None:
    ties = Ties()
    a = ties.fresh(2)
    ties.keep(torch.tensor([ALWAYS, 2]).view(1, 2, 1).expand(3, 2, 3), "why")
    ties.keep(always((3, 3)), "nothing to keep")
    assert classes(ties, a) == list("a-")
    assert ties.resolve()[1] == {2: "why"}


@pytest.mark.parametrize(
    ("dims", "expected"), [([], ["abc", "def"]), ([0], ["abc", "abc"]), ([1], ["aaa", "bbb"]), ([0, 1], ["aaa", "aaa"])]
)
def test_even(dims: Sequence[int], expected: list[str]) -> None:
    ties = Ties()
    labels = ties.fresh(2, 3)
    head = ties.even(labels, dims)
    assert table(ties, labels) == table(ties, head) == expected
    assert not any(varies(head, dim) for dim in dims)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], ["abcd", "abcd", "abcd"]),
        # Its first dimension is the only one along which something can go.
        ([(1, 2), (2, 3), (3, 4), (5, 6), (6, 7), (7, 8), (9, 10), (10, 11), (11, 12)], ["aaaa", "bbbb", "cccc"]),
        ([(1, 5), (2, 6), (3, 7), (4, 8), (5, 9), (6, 10), (7, 11), (8, 12)], ["abcd", "abcd", "abcd"]),
        ([(1, 2), (5, 6)], ["aabc", "aabc", "aabc"]),
        ([(1, 6)], ["aabc", "aabc", "aabc"]),
    ],
)
def test_a_split_dimension_is_cut_along_the_last_one_that_changes(before: Pairs, expected: list[str]) -> None:
    ties = Ties()
    labels = ties.fresh(3, 4)
    ties.rectangle(labels)
    for one, other in before:
        ties.tie(torch.tensor([one]), torch.tensor([other]))
    assert table(ties, labels) == expected


def test_a_dimension_split_into_three() -> None:
    ties = Ties()
    labels = ties.fresh(2, 3, 2)
    ties.rectangle(labels)
    ties.even(labels, [2])
    assert table(ties, labels) == ["aa", "bb", "cc", "aa", "bb", "cc"]


def test_a_kept_corner_of_a_rectangle_keeps_its_column() -> None:
    ties = Ties()
    labels = ties.fresh(2, 3)
    ties.rectangle(labels)
    ties.keep(labels[1, 2], "corner")
    assert table(ties, labels) == ["ab-", "ab-"]
    assert ties.resolve()[1] == {3: "corner", 6: "corner"}


def test_what_is_kept_does_not_change_along_a_rectangle() -> None:
    """Only whole rows go, and but for one they stay: columns need not be tied."""
    ties = Ties()
    labels = ties.fresh(3, 2)
    ties.rectangle(labels)
    ties.keep(labels[:2], "above")
    ties.even(labels, [1])
    assert table(ties, labels) == ["--", "--", "aa"]


def test_rectangles_that_need_each_other() -> None:
    """One makes the other one change along several dimensions."""
    ties = Ties()
    labels = ties.fresh(8)
    ties.rectangle(labels.view(2, 4))
    ties.rectangle(labels.view(4, 2))
    assert classes(ties, labels) == list("abababab")


def test_a_rectangle_partly_of_what_always_stays() -> None:
    """Channels of the input, joined with others and then split: columns stay where one of their elements does."""
    ties = Ties()
    labels = ties.fresh(4)
    ties.rectangle(torch.cat([torch.tensor([ALWAYS, ALWAYS]), labels]).view(2, 3))
    assert classes(ties, labels) == list("a--a")
    reasons = ties.resolve()[1]
    assert set(reasons) == {2, 3}
    assert all(reasons.values())


def test_a_parameter_that_changes_along_one_dimension_is_cut() -> None:
    ties = Ties()
    labels, channels = ties.fresh(2, 3), ties.fresh(3)
    ties.parameter(labels, "outer")
    ties.tie(labels, channels.expand(2, 3))
    assert table(ties, labels) == ["abc", "abc"]
    assert ties.resolve()[1] == {}


def test_a_parameter_that_changes_along_two_dimensions_stays_whole() -> None:
    ties = Ties()
    labels, rows = ties.fresh(2, 3), ties.fresh(2)
    ties.parameter(labels, "outer")
    ties.tie(labels[:, 0], rows)
    assert classes(ties, torch.cat([labels.flatten(), rows])) == list("--------")
    assert set(ties.resolve()[1].values()) == {"outer"}


def test_a_parameter_with_one_kept_row_of_its_own_stays_whole() -> None:
    ties = Ties()
    labels, channels = ties.fresh(2, 3), ties.fresh(3)
    ties.parameter(labels, "outer")
    ties.tie(labels[1], channels)
    ties.keep(labels[0], "token")
    assert classes(ties, channels) == list("---")


@pytest.mark.parametrize(
    ("met", "expected"),
    [
        # Two rows of three: nobody has asked for its numbers, one row, one column, all, or both.
        ({}, "abcde"),
        ({"row": 1}, "abcde"),
        ({"rows": True}, "abcde"),
        ({"columns": True, "rows": True}, "-----"),
        ({"number": True}, "-----"),
    ],
    ids=["alone", "one row", "rows", "both", "stays"],
)
def test_a_weights_numbers_go_with_one_of_its_sides(met: Mapping[str, Any], expected: str) -> None:
    ties = Ties()
    labels, outputs, inputs = ties.fresh(2, 3), ties.fresh(2), ties.fresh(3)
    rows, columns = ties.fresh(2), ties.fresh(3)
    ties.parameter(labels, "outer")
    ties.weight(labels, (outputs, inputs), "numbers")
    if "row" in met:
        ties.even(labels, [0])
        ties.tie(labels[0], columns)
    if "rows" in met:
        ties.tie(labels, rows[:, None].expand(2, 3))
    if "columns" in met:
        ties.tie(labels, columns.expand(2, 3))
    if "number" in met:
        ties.keep(labels[0, :1], "input")
    assert "".join(classes(ties, torch.cat([outputs, inputs]))) == expected
    found = ties.resolve()[0]
    assert np.array_equal(found[columns], found[inputs]) == bool({"row", "columns"} & set(met))
    assert np.array_equal(found[rows], found[outputs]) == ("rows" in met)


def test_a_vector_is_cut_freely() -> None:
    ties = Ties()
    labels, number = ties.fresh(3), ties.fresh()
    ties.parameter(labels, "outer")
    ties.parameter(number, "outer")
    ties.parameter(ties.fresh(1, 3, 1), "outer")
    assert classes(ties, torch.arange(1, ties.number)) == list("abcdefg")


def test_a_parameter_that_stays_can_spoil_a_rectangle() -> None:
    ties = Ties()
    labels, weight = ties.fresh(2, 2), ties.fresh(2, 2)
    ties.rectangle(labels)
    ties.parameter(weight, "outer")
    ties.tie(labels[0, :1], weight[0, :1])
    assert table(ties, labels) == ["-a", "-a"]


def test_resolving_again_changes_nothing() -> None:
    ties = Ties()
    labels = ties.fresh(2, 2, 2)
    ties.rectangle(labels)
    ties.parameter(labels.view(2, 4), "outer")
    one, other = ties.resolve(), ties.resolve()
    assert np.array_equal(one[0], other[0])
    assert one[1] == other[1]


LABEL = st.integers(0, LABELS)
PAIRS = st.lists(st.tuples(LABEL, LABEL), max_size=14)


@given(PAIRS, st.lists(st.integers(1, LABELS), max_size=3), st.randoms(use_true_random=False))
def test_ties_are_a_union_find(pairs: Pairs, kept: list[int], random: Random) -> None:
    ties = Ties()
    ties.fresh(LABELS)
    for pair in random.sample(pairs, len(pairs)):
        ties.tie(torch.tensor(pair[:1]), torch.tensor(pair[1:]), "tied")
    for label in kept:
        ties.keep(torch.tensor([label]), "kept")
    channels, reasons = ties.resolve()
    root = union([*pairs, *((ALWAYS, label) for label in kept)])
    stays = [label for label in range(LABELS + 1) if root[label] == root[ALWAYS]]
    assert np.flatnonzero(channels == ALWAYS).tolist() == stays
    for one in range(LABELS + 1):
        for other in range(LABELS + 1):
            assert (channels[one] == channels[other]) == (root[one] == root[other])
    assert sorted(reasons) == [label for label in stays if label != ALWAYS]


@given(
    st.permutations(range(1, LABELS + 1)),
    st.sampled_from([(3, 4), (4, 3), (2, 6), (2, 3, 2), (2, 2, 3)]),
    st.lists(st.tuples(st.integers(1, LABELS), st.integers(1, LABELS)), max_size=8),
    st.lists(st.integers(1, LABELS), max_size=2),
    st.booleans(),
)
def test_whatever_goes_leaves_a_rectangle(
    order: list[int], shape: tuple[int, ...], pairs: Pairs, kept: list[int], outer: bool
) -> None:
    ties = Ties()
    ties.fresh(LABELS)
    labels = torch.tensor(order).view(shape)
    (ties.parameter(labels, "outer") if outer else ties.rectangle(labels))
    for one, other in pairs:
        ties.tie(torch.tensor([one]), torch.tensor([other]))
    for label in kept:
        ties.keep(torch.tensor([label]), "kept")
    channels, reasons = ties.resolve()
    found = channels[labels.numpy()]
    for gone in {*found.ravel().tolist()} - {ALWAYS}:
        left = found != gone
        edges = [left.any(tuple(set(range(left.ndim)) - {dim})) for dim in range(left.ndim)]
        assert left.sum() == np.prod([edge.sum() for edge in edges])
    # What was tied, stays tied; nothing goes that had to stay, and what stays for no such reason is of a parameter.
    assert all(channels[one] == channels[other] for one, other in pairs)
    assert not channels[kept].any()
    assert set(reasons.values()) <= ({"outer", "kept"} if outer else {"kept"})
    assert bool(reasons) == (not channels[1:].all())
