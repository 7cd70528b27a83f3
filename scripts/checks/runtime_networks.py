"""Prove on the zoo that a network with gates is deployed as it was measured, and write docs/runtime_networks.md.

    python scripts/checks/runtime_networks.py
    python scripts/checks/runtime_networks.py --only 'timm/*net*'  # prints the table, writes nothing

Weights and gates are random, and computed in double precision, in which no two channels are equally important by
rounding; nothing is downloaded.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from networks import FAILED, NOT_ASKED, PASSED, count, description, enliven, said
from torch import Tensor
from zoo import NETWORKS, OTHERS, SLOW

from rlprune.artifacts.pruned import load, save_pruned
from rlprune.cost.exact import Cost, build_cost
from rlprune.errors import UserError
from rlprune.gating import gathering
from rlprune.gating.agreement import sound_wires
from rlprune.gating.checkpoint import shrink, stored_mask
from rlprune.gating.controller import KeepController
from rlprune.gating.gate import Wire, make_gates, possible_wires
from rlprune.gating.layout import make_layout
from rlprune.gating.network import GatedNetwork
from rlprune.gating.skipping import SkippingNetwork
from rlprune.graph.structure import Graph
from rlprune.models.registry import build_model
from rlprune.plans.plan import make_plan
from rlprune.tracing.build import build_graph
from rlprune.utils.device import machine
from rlprune.utils.files import write_text

REPORT = Path(__file__).resolve().parents[2] / "docs" / "runtime_networks.md"
IMAGES = 4
MIX = 0.5
"""Half of what all images want gone is really removed."""
TOLERANCE = 1e-4
"""Relative to how much outputs differ between images."""
COLUMNS = ("network", "pixels", "groups", "gates", "without", "stored", "MACs of an image", "deployed", "counted")


def main() -> None:
    """Check the networks one by one, print how it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks to check; writes nothing")
    given = parser.parse_args()
    asked = [name for name, network in NETWORKS.items() if network.small and name not in SLOW]
    names = [name for name in asked if fnmatch(name, given.only) and name.removeprefix("zoo.py:") not in OTHERS]
    if not names:
        sys.exit(f"runtime_networks.py: no network is called '{given.only}': known are {', '.join(asked)}")
    torch.set_num_threads(1)
    # Zeros in the place of inputs that are not there are no MACs of the network, but the counter would see them.
    gathering.LARGE = sys.maxsize
    results = []
    for number, name in enumerate(names, 1):
        start = time.perf_counter()
        results.append(check(name))
        print(
            f"{number}/{len(names)} {' | '.join(row(results[-1], {}))} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    if given.only == "*":
        write_text(REPORT, report(results))
    else:
        print(report(results))
    if failed := [result.name for result in results if result.failed]:
        sys.exit(f"runtime_networks.py: {len(failed)} of {len(names)} fail: {', '.join(failed)}")


@dataclass
class Result:
    """What was found of one network.

    Attributes:
        name: of the network.
        size: side of the images, pixels.
        groups, gates: groups of channels, and those that have a gate.
        why_not: layer -> why it has no gate though it fills a group of its own.
        stored: part of the parameters that stay.
        macs: mean MACs of an image relative to the dense network.
        deployed, counted: ✓, n/a, or what went wrong.
        said: why it was not asked.
    """

    name: str
    size: int
    groups: int = 0
    gates: int = 0
    why_not: dict[str, str] = field(default_factory=dict)
    stored: float = 1.0
    macs: float = 1.0
    deployed: str = NOT_ASKED
    counted: str = NOT_ASKED
    said: str = ""

    @property
    def failed(self) -> bool:
        """Whether something went wrong."""
        return not {self.deployed, self.counted} <= {PASSED, NOT_ASKED}


def check(name: str) -> Result:
    """Give one network gates, cut, save and load it, and compare."""
    result = Result(name, NETWORKS[name].small or NETWORKS[name].full)
    torch.manual_seed(0)
    try:
        module = build_model(**description(name, result.size)).eval()
        images = torch.randn(IMAGES, 3, result.size, result.size)
        enliven(module, images)
        graph = build_graph(module, images[:1])
        result.groups = len(graph.groups)
        wires, result.why_not = sound_wires(module, graph, possible_wires(module, graph), images)
        result.gates = len(wires)
    except UserError as error:
        result.said = str(error)
        return result
    # Whatever goes wrong is told in the table, and the other networks are still checked.
    except Exception as error:
        result.deployed = said(error)
        return result
    try:
        compare(result, with_gates(module, graph, wires), build_cost(graph), images.double())
    except Exception as error:
        result.deployed = said(error)
    return result


def with_gates(module: torch.nn.Module, graph: Graph, wires: tuple[Wire, ...]) -> GatedNetwork:
    """The network with gates and agent of random opinions."""
    rng = np.random.default_rng(0)
    gated = GatedNetwork(module, graph, wires, make_gates(module, wires, rng.random(sum(graph.sizes)) + 0.5, True), MIX)
    layout = make_layout(gated, build_cost(graph))
    runtime = KeepController(layout, torch.as_tensor(rng.uniform(0.4, 0.9, len(wires))), acts=True)
    runtime.budget = float(np.interp(0.6, layout.ratios, layout.macs))
    with torch.no_grad():
        for number in range(len(wires)):
            gate = gated.gate(number)
            assert gate.predictor is not None
            gate.scale.uniform_(0.8, 1.2)
            # Products of many factors would leave the range of numbers.
            gate.predictor.weight.normal_(std=0.1 / gate.predictor.in_features**0.5)
        assert runtime.policy is not None
        runtime.policy.head.weight.normal_(std=1.0)
    gated.runtime = runtime
    gated.network.double()
    return gated.eval()


@torch.no_grad()
def compare(result: Result, gated: GatedNetwork, cost: Cost, images: Tensor) -> None:
    """Under masks, before anything is removed, against the saved folder, image by image and in groups."""
    runtime = gated.runtime
    assert isinstance(runtime, KeepController)
    masked = gated(images)
    counts, mask = gated.counts(), stored_mask(gated, runtime)
    network = description(result.name, result.size)
    network["model"] = network.pop("name")
    plan = make_plan(gated.graph, mask, network)
    result.stored, result.macs = float(cost.ratios(plan.counts())[1]), float(cost.ratios(counts)[:, 0].mean())
    with tempfile.TemporaryDirectory() as folder:
        save_pruned(shrink(gated, runtime), plan, Path(folder))
        loaded = load(folder, model=network["model"])
    assert isinstance(loaded, SkippingNetwork)
    alone = [images[number : number + 1] for number in range(len(images))]
    spread = (masked - masked[:1]).abs().max()
    found = {
        "alone": torch.cat([loaded(image) for image in alone]),
        "in pairs": loaded.grouped(images, 2),
        "together": loaded.grouped(images, 1),
    }
    errors = {how: ((logits - masked).abs().max() / spread).item() for how, logits in found.items()}
    wrong = [f"{how} by {error:.1e}" for how, error in errors.items() if not error <= TOLERANCE]
    result.deployed = f"outputs differ {', '.join(wrong)} of their spread over the images" if wrong else PASSED
    ran, expected = [count(loaded, image)[0] for image in alone], cost(counts)[:, 0]
    result.counted = PASSED if (ran == expected).all() else f"counted {expected.astype(int).tolist()}, torch has {ran}"


def report(results: list[Result]) -> str:
    """The page with the table, and every reason below it."""
    reasons = sorted({reason for result in results for reason in result.why_not.values()})
    letters = {reason: chr(ord("a") + number) for number, reason in enumerate(reasons)}
    asked = [result for result in results if not result.said]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *(row(result, letters) for result in asked)]
    wrong = [f"- `{result.name}`: {told}" for result in asked for told in (result.deployed, result.counted)
             if told not in (PASSED, NOT_ASKED)]  # fmt: skip
    said: dict[str, list[str]] = {}
    for result in results:
        if result.said:
            said.setdefault(result.said, []).append(f"`{result.name}`")
    passed = sum(not result.failed for result in asked)
    parts = [
        HEADER,
        f"{passed} of {len(asked)} networks that can have gates are deployed as they were measured.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        "\n".join(wrong),
        "Without a gate, though they fill a group of their own:" if reasons else "",
        "\n".join(f"- {letters[reason]}: {reason}" for reason in reasons),
        "Refused:" if said else "",
        "\n".join(f"- {', '.join(names)}: {reason}" for reason, names in said.items()),
        f"*{machine()}, {date.today().isoformat()}*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def row(result: Result, letters: dict[str, str]) -> list[str]:
    """One network's cells."""
    whys = [letters.get(why, why) for why in result.why_not.values()]
    without = ", ".join(f"{whys.count(why)} {why}" for why in dict.fromkeys(whys)) or "none"
    parts = [f"{100 * part:.0f} %" for part in (result.stored, result.macs)]
    marks = [told if told in (PASSED, NOT_ASKED) else FAILED for told in (result.deployed, result.counted)]
    return [f"`{result.name}`", str(result.size), str(result.groups), str(result.gates), without, *parts, *marks]


HEADER = f"""# Networks with gates

Written by `python scripts/checks/runtime_networks.py`: [every image its own channels](runtime.md) on networks that are
not ours, with random weights, gates and agents, and a mix of {MIX:g}. In the table

- **gates**: groups that can be chosen image by image; **without**: layers that lost theirs, and why;
- **stored**: parameters that stay; **MACs of an image**: the mean that runs;
- **deployed**: what `rlprune.load` gives for the saved folder computes one by one, in pairs and together what the
  network computed under masks before anything was removed, to {TOLERANCE:g} of how much outputs differ between images;
- **counted**: its MACs of every image are exactly those that torch's own counter finds."""


if __name__ == "__main__":
    main()
