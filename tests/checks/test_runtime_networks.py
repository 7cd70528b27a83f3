"""Small networks of others with gates; `scripts/checks/runtime_networks.py` has them all."""

import pytest
from networks import NOT_ASKED, PASSED
from runtime_networks import Result, check, report

from rlprune.gating import gathering

GATES = {
    # How many there are at least.
    "torchvision/squeezenet1_1": 25,
    "torchvision/shufflenet_v2_x0_5": 18,
    "torchvision/mobilenet_v3_small": 13,
    "torchvision/mnasnet0_5": 20,
    "timm/resnet10t": 6,
    "timm/ghostnet_100": 18,
    "timm/lcnet_050": 15,
    "timm/tinynet_e": 15,
}


@pytest.mark.parametrize("name", GATES)
def test_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "LARGE", 1 << 62)
    result = check(name)
    assert (result.deployed, result.counted) == (PASSED, PASSED)
    assert result.gates >= GATES[name]
    assert result.macs < 1


def test_a_network_without_a_layer_for_gates_is_refused_in_a_sentence() -> None:
    result = check("timm/vit_tiny_patch16_224")
    assert result.said == "no layer of this network can be skipped image by image: none fills a group of its own"
    assert (result.deployed, result.counted) == (NOT_ASKED, NOT_ASKED)
    assert not result.failed


def test_the_report_hides_no_failure() -> None:
    why = {"conv1": "it mixes", "conv2": "it mixes", "conv3": "it is called in another order"}
    good = Result("good", 64, 5, 2, why, 0.75, 0.5, PASSED, PASSED)
    bad = Result("bad", 64, 5, 5, {}, 1.0, 0.5, "outputs differ alone by 3.0e-01", "counted [3], torch has [4]")
    broken = Result("broken", 64, deployed="RuntimeError: no")
    refused = [Result(name, 64, said="no layer can be skipped") for name in ("one", "two")]
    text = report([good, bad, broken, *refused])
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert rows == {
        "good": "| `good` | 64 | 5 | 2 | 2 b, 1 a | 75 % | 50 % | ✓ | ✓ |",
        "bad": "| `bad` | 64 | 5 | 5 | none | 100 % | 50 % | ✗ | ✗ |",
        "broken": "| `broken` | 64 | 0 | 0 | none | 100 % | 100 % | ✗ | n/a |",
    }
    assert "1 of 3 networks that can have gates are deployed as they were measured" in text
    assert "- `bad`: outputs differ alone by 3.0e-01\n- `bad`: counted [3], torch has [4]" in text
    assert "- `broken`: RuntimeError: no" in text
    assert "- b: it mixes" in text
    assert "- `one`, `two`: no layer can be skipped" in text
