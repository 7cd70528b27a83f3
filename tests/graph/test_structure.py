from rlprune.graph.structure import Graph, Group


def test_sizes_are_in_the_order_of_the_groups() -> None:
    groups = (Group("a", 8, 0, ("a",), ("b",)), Group("b", 3, 8, ("b",), ()))
    assert Graph(groups, (), (), (), {}, {}).sizes.tolist() == [8, 3]
