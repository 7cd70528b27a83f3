"""A policy away from home, without evaluations and with a few, against searches that start there from nothing.

    python scripts/benchmarks/replay.py --data folder:PATH --checkpoint FILE
    python scripts/benchmarks/replay.py --data folder:PATH --left-out

On CIFAR-10 the policy of one search goes to another checkpoint of the same network, which is trained here for four
epochs unless `--other` names one, and to another depth, trained alike; on digits it goes to other weights, another
depth and another family. With `--left-out` one policy is trained on all but one of four networks, under a range of
budgets, and walks the one left out, for which 10,000 training images are enough. What has been measured is not measured
again.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import keep, kept

Record = dict[str, Any]
EVALUATIONS = (0, 2, 20, 60)
"""Allowed to replay; with two the policy's plan and the borrowed rule's are told apart."""
FOUR = {"vgg16": "0.25", "resnet20": "0.5", "resnet32": "0.5", "mobilenetv2": "0.35"}
"""The networks of which one is left out, and their widths."""
RANGE, ONE = "0.2:0.5", "0.3"
"""What the policy is trained under, and what it walks under on the network left out."""
LEFT_OUT = (0, 2, 20)
SMALL = ["--data", "digits", "--train-epochs", "6", "--seed", "0"]


@dataclass(frozen=True)
class Journey:
    """From where to where: the settings of the network and images at home, and there."""

    name: str
    budget: str
    home: list[str]
    there: list[str]


def main() -> None:
    """Make every journey, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: cifar10, or folder:PATH with train/ and test/")
    parser.add_argument("--checkpoint", help="the dense network at home, vgg16 with width=0.25")
    parser.add_argument("--left-out", action="store_true", help="one policy of three networks on a fourth")
    parser.add_argument("--other", type=Path, help="another one, trained alike")
    parser.add_argument("--evaluations", type=int, default=300, help="of every search")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-replay"), help="where the runs lie")
    given = parser.parse_args()
    if not given.left_out and given.checkpoint is None:
        parser.error("--checkpoint is missing")
    figures = {key: value for key, value in kept("replay").items() if key not in ("date", "machine")}
    if given.left_out:
        keep("replay", figures | {"left out": [left_out(name, given) for name in FOUR]})
    else:
        rows = [measured(journey, given) for journey in journeys(given)]
        keep("replay", figures | {"evaluations": given.evaluations, "rows": rows})


def journeys(given: argparse.Namespace) -> list[Journey]:
    """Other weights, another depth, another family."""
    vgg = ["--model", "vgg16", "--model-args", "width=0.25", "--data", given.data]
    other = given.other or given.out / "other.safetensors"
    if not other.is_file():
        done("train", [*vgg, "--epochs", "4", "--seed", "1"], other)
    shallow = ["--model", "vgg13", *vgg[2:]]
    thirteen = given.out / "vgg13.safetensors"
    if not thirteen.is_file():
        done("train", [*shallow, "--epochs", "4", "--seed", "1"], thirteen)
    resnet = ["--model", "resnet20", "--model-args", "width=0.5"]
    weights = given.out / "digits-other.safetensors"
    if not weights.is_file():
        done("train", [*resnet, "--data", "digits", "--epochs", "6", "--seed", "1"], weights)
    digits = [*resnet, *SMALL]
    return [
        Journey("CIFAR-10, vgg16 ×0.25 → other weights", "0.3",
                [*vgg, "--checkpoint", given.checkpoint], [*vgg, "--checkpoint", str(other)]),
        Journey("CIFAR-10, vgg16 ×0.25 → vgg13 ×0.25", "0.3",
                [*vgg, "--checkpoint", given.checkpoint], [*shallow, "--checkpoint", str(thirteen)]),
        Journey("digits, resnet20 ×0.5 → other weights", "0.4", digits, [*digits, "--checkpoint", str(weights)]),
        Journey("digits, resnet20 ×0.5 → resnet32 ×0.5", "0.4", digits,
                ["--model", "resnet32", "--model-args", "width=0.5", *SMALL]),
        Journey("digits, resnet20 ×0.5 → mobilenetv2 ×0.35", "0.4", digits,
                ["--model", "mobilenetv2", "--model-args", "width=0.35", *SMALL]),
    ]  # fmt: skip


def measured(journey: Journey, given: argparse.Namespace) -> Record:
    """Losses on the search images and one-shot accuracies on the test images."""
    place = given.out / _plain(journey.name)
    limits = ["--budget", journey.budget]
    search = [*limits, "--evaluations", str(given.evaluations), "--finetune-epochs", "0"]
    home = given.out / f"home-{_plain(journey.name.partition(' → ')[0])}"
    done("search", [*journey.home, *search], home)
    fresh = done("search", [*journey.there, *search], place / "fresh")
    rivals = [*limits, "--methods", "uniform,sensitivity", "--seeds", "1"]
    theirs = {row["method"]: row for row in done("compare", [*journey.there, *rivals], place / "rivals")["methods"]}
    tries = [
        done("replay", [str(home), *journey.there, *limits, "--evaluations", str(number)], place / f"replay-{number}")
        for number in EVALUATIONS
    ]
    replays = {str(number): tried for number, tried in zip(EVALUATIONS, tries, strict=True)}
    known = replays["2"]
    return {
        "journey": journey.name,
        "budget": journey.budget,
        "home": replays["0"]["home"],
        "seconds": replays["0"]["wall"],
        "loss": {
            **{name: row["search_loss"] for name, row in theirs.items()},
            "borrowed rule": known["base_loss"],
            "policy": known["policy_loss"],
            **{f"replay {number}": replays[str(number)]["search_loss"] for number in EVALUATIONS[1:]},
            "search": fresh["search_loss"],
        },
        "accuracy": {
            **{name: row["test_accuracy"] for name, row in theirs.items()},
            **{f"replay {number}": replays[str(number)]["oneshot_accuracy"] for number in EVALUATIONS},
            "search": fresh["oneshot_accuracy"],
            "dense": fresh["dense_accuracy"],
        },
    }


def left_out(name: str, given: argparse.Namespace) -> Record:
    """One-shot accuracies and losses on a network by a policy of the three others, and by the rules measured there."""
    others = [other for other in FOUR if other != name]
    weights = {other: dense(other, given) for other in FOUR}
    words = ["--model", ",".join(others), "--model-args", ";".join(f"width={FOUR[other]}" for other in others)]
    words += ["--checkpoint", ",".join(str(weights[other]) for other in others), "--data", given.data]
    words += ["--budget", RANGE, "--evaluations", str(2 * given.evaluations), "--finetune-epochs", "0"]
    home = given.out / f"without-{name}"
    done("search", words, home)
    there = ["--model", name, "--model-args", f"width={FOUR[name]}", "--checkpoint", str(weights[name])]
    there += ["--data", given.data, "--budget", ONE]
    rivals = ["--methods", "uniform,sensitivity", "--seeds", "1"]
    rules = done("compare", [*there, *rivals], given.out / f"{name}-rules")["methods"]
    tries = {
        number: done("replay", [str(home), *there, "--evaluations", str(number)], given.out / f"{name}-after-{number}")
        for number in LEFT_OUT
    }
    losses = {row["method"]: row["search_loss"] for row in rules}
    accuracies = {row["method"]: row["test_accuracy"] for row in rules}
    losses |= {
        "borrowed rule": tries[2]["base_loss"],
        "policy": tries[2]["policy_loss"],
        "20": tries[20]["search_loss"],
    }
    accuracies |= {"policy": tries[0]["oneshot_accuracy"], "20": tries[20]["oneshot_accuracy"]}
    return {"network": f"{name} ×{FOUR[name]}", "home": tries[0]["home"], "loss": losses, "accuracy": accuracies}


def dense(name: str, given: argparse.Namespace) -> Path:
    """Weights of one of the four networks."""
    path: Path = given.out / f"{name}.safetensors"
    if not path.is_file():
        words = ["--model", name, "--model-args", f"width={FOUR[name]}", "--data", given.data]
        done("train", [*words, "--epochs", "10"], path)
    return path


def done(command: str, words: list[str], out: Path) -> Record:
    """The result of a command, from its folder where it is finished; with the seconds of the whole process."""
    told = out.with_name(f"{out.name}.told.json")
    if not told.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        result, wall = command(command, *words, "--out", str(out))
        told.write_text(json.dumps(result | {"wall": wall}) + "\n")
    return json.loads(told.read_text())


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def replay_table(figures: Record) -> str:
    """One row a journey."""
    title = (
        f"**A policy away from home, against a search of {figures['evaluations']} evaluations there: one-shot test "
        "accuracy in %, and loss on the search images** (`python scripts/benchmarks/replay.py`)"
    )
    losses = ["uniform", "sensitivity", "borrowed rule", "policy", *(f"replay {n}" for n in EVALUATIONS[2:]), "search"]
    accuracies = ["uniform", "sensitivity", *(f"replay {n}" for n in (0, *EVALUATIONS[2:])), "search"]
    lines = [title]
    for what, names, digits in (("accuracy", accuracies, 1), ("loss", losses, 3)):
        lines += ["", f"| {what} | kept | distance | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
        for row in figures["rows"]:
            scale = 100 if what == "accuracy" else 1
            cells = [f"{scale * row[what][name]:.{digits}f}" for name in names]
            start = f"| {row['journey']} | {100 * float(row['budget']):g} % | {row['home']['distance']:.2f} | "
            lines.append(start + " | ".join(cells) + " |")
    note = (
        "`sensitivity` measures its curves there, the borrowed rule takes those from home; `policy` is what `replay` "
        "does without evaluations, `replay N` with N of them."
    )
    after = ["", left_out_table(figures["left out"])] if "left out" in figures else []
    return "\n".join([*lines, "", note, *after])


def left_out_table(rows: list[Record]) -> str:
    """One row a network that is left out, and the mean."""
    names = ("uniform", "sensitivity", "borrowed rule", "policy", "20")
    title = (
        f"**One policy of three networks, trained for {RANGE} of the MACs, on a fourth at {ONE}: loss on the search "
        "images / one-shot test accuracy in %** (`python scripts/benchmarks/replay.py --left-out`)"
    )
    lines = [title, "", "| left out | distance | uniform | sensitivity | borrowed rule | policy | replay 20 |"]
    lines.append("|---" * 7 + "|")
    for row in rows:
        cells = [_pair(row["loss"][name], row["accuracy"].get(name)) for name in names]
        lines.append(f"| {row['network']} | {row['home']['distance']:.2f} | " + " | ".join(cells) + " |")
    means = [
        _pair(
            sum(row["loss"][name] for row in rows) / len(rows),
            sum(row["accuracy"][name] for row in rows) / len(rows) if name in rows[0]["accuracy"] else None,
        )
        for name in names
    ]
    return "\n".join([*lines, "| mean | | " + " | ".join(means) + " |"])


def _pair(loss: float, accuracy: float | None) -> str:
    return f"{loss:.3f}" + ("" if accuracy is None else f" / {100 * accuracy:.1f}")


if __name__ == "__main__":
    main()
