"""Does the agent pay? Search methods on CIFAR-10, cell by cell, with seeds.

    python scripts/benchmarks/search.py --data folder:PATH --quick     # two networks, two budgets, the main rivals
    python scripts/benchmarks/search.py --data folder:PATH             # three networks, three budgets
    python scripts/benchmarks/search.py --data folder:PATH --full      # resnet56, the full vgg16, and every method

A cell is a network and a budget; `rlprune compare` measures it, and torch-pruning stands beside at equal MACs. What has
been measured is not measured again: the same command continues. After every cell the figures go to
docs/benchmarks/search.json.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from common import command, keep, kept
from peers import PEERS, peers

from rlprune.utils.progress import Progress
from rlprune.workloads.workload import open_workload

Record = dict[str, Any]
OURS = "ppo"
MAIN = "uniform,global-l1,sensitivity,random,evolution,cma-es,ppo"
USUAL = "uniform,global-l1,sensitivity,random,evolution,cma-es,amc,ppo"
EVERY = f"{USUAL},ddpg,td3,sac"
MEASURED = ("search_loss", "search_loss_sd", "test_accuracy", "test_accuracy_sd", "evaluations", "seconds", "own_share")


class Network(NamedTuple):
    """A network of the grid: how the table calls it, and how the command line does."""

    label: str
    model: str
    width: str

    def words(self) -> list[str]:
        """As the command line takes it."""
        return ["--model", self.model, *(["--model-args", f"width={self.width}"] if self.width else [])]

    def file(self) -> str:
        """A name for its weights."""
        return f"{self.model}-{self.width or 1}.safetensors"


VGG, RESNET, MOBILENET = (
    Network("vgg16 ×0.25", "vgg16", "0.25"),
    Network("resnet20", "resnet20", ""),
    Network("mobilenetv2 ×0.35", "mobilenetv2", "0.35"),
)
QUICK = [(network, budget) for network in (VGG, Network("resnet20 ×0.5", "resnet20", "0.5")) for budget in (0.15, 0.3)]
GRID = [(network, budget) for network in (VGG, RESNET, MOBILENET) for budget in (0.15, 0.3, 0.5)]
FULL = GRID + [
    (network, budget)
    for network in (Network("resnet56", "resnet56", ""), Network("vgg16", "vgg16", ""))
    for budget in (0.15, 0.3, 0.5)
]


def main() -> None:
    """Measure what is left of a grid, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: cifar10, or folder:PATH with train/ and test/")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about an hour and a half on two cores")
    size.add_argument("--full", action="store_true", help="for a GPU or a long night")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-search"), help="where the comparisons lie")
    parser.add_argument("--checkpoints", type=Path, help="dense networks; those that are missing are trained")
    given = parser.parse_args()
    grid, methods = (QUICK, MAIN) if given.quick else (FULL, EVERY) if given.full else (GRID, USUAL)
    known = [each for each in measured(given) if (each["network"], each["budget"]) in places(grid)]
    figures: Record = {"cells": known, "of": len(grid), "seeds": given.seeds, "evaluations": given.evaluations}
    for network, budget in grid:
        if (network.label, budget) not in {(each["network"], each["budget"]) for each in figures["cells"]}:
            figures["cells"].append(cell(network, budget, methods, given))
            figures["cells"].sort(key=lambda each: places(grid).index((each["network"], each["budget"])))
            save(figures)


def places(grid: list[tuple[Network, float]]) -> list[tuple[str, float]]:
    """What tells the cells of a grid apart."""
    return [(network.label, budget) for network, budget in grid]


def measured(given: argparse.Namespace) -> list[Record]:
    """The cells that an earlier run with as many seeds and evaluations has left."""
    figures = kept("search")
    same = (figures.get("seeds"), figures.get("evaluations")) == (given.seeds, given.evaluations)
    return figures["cells"] if same else []


def cell(network: Network, budget: float, methods: str, given: argparse.Namespace) -> Record:
    """One comparison, or what it found before."""
    weights = (given.checkpoints or given.out / "dense") / network.file()
    if not weights.is_file():
        # The recipe of the other CIFAR-10 tables.
        recipe = ["--epochs", "12", "--lr", "0.1", "--batch-size", "128"]
        command("train", *network.words(), "--data", given.data, *recipe, "--out", str(weights))
    words = ["--data", given.data, "--checkpoint", str(weights), "--budget", str(budget), "--methods", methods]
    words += ["--seeds", str(given.seeds), "--evaluations", str(given.evaluations)]
    folder = given.out / f"{weights.stem}-{budget}"
    result, _ = command("compare", *network.words(), *words, "--out", str(folder))
    records = [{key: record[key] for key in ("method", *MEASURED)} for record in result["methods"]]
    settings = {"model": network.model, "model_args": network.width and f"width={network.width}", "data": given.data}
    records += peers(open_workload(settings | {"checkpoint": weights}, Progress()), budget)
    facts = {"network": network.label, "budget": budget, "dense": result["dense_accuracy"]}
    return facts | {"verdict": result["verdict"], "methods": records}


def save(figures: Record) -> None:
    """Keep the figures."""

    keep("search", figures)


def search_table(figures: Record) -> str:
    """Search losses and one-shot accuracies of every cell, and what they say together."""
    cells = figures["cells"]
    title = (
        f"**Search methods on CIFAR-10, {figures['evaluations']} evaluations each, {figures['seeds']} seeds** "
        "(`python scripts/benchmarks/search.py`)"
    )
    losses = _grid(cells, "search_loss", 1, 3, min)
    accuracies = _grid(cells, "test_accuracy", 100, 1, max)
    return "\n\n".join(
        [
            title,
            "Lowest loss found on the search images (mean ± sd over the seeds):",
            losses,
            "The same plans on the test images, one-shot, accuracy in %:",
            accuracies,
            _summary(figures),
        ]
    )


def _grid(cells: list[Record], name: str, scale: float, digits: int, best: Any) -> str:
    present = dict.fromkeys(record["method"] for cell in cells for record in cell["methods"])
    methods = sorted(present, key=[*EVERY.split(","), *PEERS].index)
    lines = ["| network | MACs | " + " | ".join(f"`{method}`" for method in methods) + " |"]
    lines.append("|---|---|" + "---|" * len(methods))
    for each in cells:
        known = {record["method"]: record for record in each["methods"]}
        first = best(known, key=lambda method: known[method][name])
        texts = [_number(known.get(method), name, scale, digits, method == first) for method in methods]
        lines.append(f"| {each['network']} | {100 * each['budget']:g} % | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _number(record: Record | None, name: str, scale: float, digits: int, first: bool) -> str:
    if record is None:
        return ""
    text = f"{scale * record[name]:.{digits}f}"
    text = f"**{text}**" if first else text
    # Methods that draw nothing end alike with every seed.
    return text + (f" ± {scale * record[f'{name}_sd']:.{digits}f}" if record[f"{name}_sd"] else "")


def _summary(figures: Record) -> str:
    cells = figures["cells"]
    ahead, rivals, evolved, shares = 0, [], [], []
    for each in cells:
        known = {record["method"]: record for record in each["methods"]}
        ours = known.pop(OURS)
        rival = min(record["search_loss"] for record in known.values())
        ahead += ours["search_loss"] < rival
        rivals.append(ours["search_loss"] - rival)
        evolved.append(ours["search_loss"] - known["cma-es"]["search_loss"])
        shares.append(ours["own_share"])
    return (
        f"Measured so far: {len(cells)} of {figures['of']} cells of this grid. `{OURS}` has the lowest mean loss in "
        f"{ahead} of them; on average it ends {_signed(rivals)} against the best rival of each cell and "
        f"{_signed(evolved)} against CMA-ES. Agent, reward model and bookkeeping take at most "
        f"{100 * max(shares):.0f} % of its time."
    )


def _signed(differences: list[float]) -> str:
    mean = sum(differences) / len(differences)
    return f"{abs(mean):.3f} {'lower' if mean < 0 else 'higher'}"


if __name__ == "__main__":
    main()
