"""Results come in the order of the items, each as soon as it is there."""

from rlprune.execution.executor import SerialExecutor


def test_one_after_the_other() -> None:
    called: list[int] = []

    def double(item: int) -> int:
        called.append(item)
        return 2 * item

    results = SerialExecutor().map(double, [3, 1, 2])
    assert called == []
    assert next(results) == 6
    assert called == [3]
    assert list(results) == [2, 4]
