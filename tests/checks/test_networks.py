"""Networks of the zoo on small images; `scripts/checks/networks.py` has them all."""

from collections.abc import Iterator
from concurrent.futures import Executor

import pytest
from networks import CHECKS, NETWORKS, PASSED, Result, check, reloading, report
from zoo import SLOW


@pytest.fixture(scope="module")
def fresh() -> Iterator[Executor]:
    with reloading() as executor:
        yield executor


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.small and name not in SLOW])
def test_network(name: str, fresh: Executor) -> None:
    result = check(name, fresh, small=True)
    assert list(result.checks) == list(CHECKS)
    assert not result.failures


def test_what_is_left_to_the_script_is_there() -> None:
    assert set(NETWORKS) > SLOW
    assert all(NETWORKS[name].small for name in SLOW)


def test_the_report_hides_no_failure() -> None:
    checks = dict.fromkeys(CHECKS, PASSED)
    good = Result("good", 32, checks, 3, {"fc": "it is the output", "head": "it is the output"}, (0.012, 0.34), 1.0)
    bad = Result("bad", 64, checks | {"slices": "outputs differ", "disconnected": "n/a: layer norm"}, 2)
    broken = Result("broken", 64, dict.fromkeys(CHECKS, "RuntimeError: no"))
    text = report([good, bad, broken])
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert rows["good"] == "| `good` | 32 | 3 | 2 a | 1.2 % | 34 % | " + "✓ | " * len(CHECKS) + "1.0 s |"
    assert rows["bad"].count("✗") == rows["bad"].count("n/a") == 1
    assert rows["broken"].count("✗") == len(CHECKS)
    assert "- ✗ `bad` (slices): outputs differ" in text
    assert f"- ✗ `broken` ({', '.join(CHECKS)}): RuntimeError: no" in text
    assert "- n/a `bad` (disconnected): layer norm" in text
    assert "1 of 3 networks pass" in text
    assert "- a: it is the output" in text
