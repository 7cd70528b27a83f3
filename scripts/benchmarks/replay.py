"""A policy away from home, without evaluations and with a few, against searches that start there from nothing.

    python scripts/benchmarks/replay.py --data folder:PATH --checkpoint FILE

On CIFAR-10 the policy of one search goes to another checkpoint of the same network, which is trained here for four
epochs unless `--other` names one, and to another depth, trained alike; on digits it goes to other weights, another
depth and another family. What has been measured is not measured again.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import keep

Record = dict[str, Any]
EVALUATIONS = (0, 2, 20, 60)
"""Allowed to replay; with two the policy's plan and the borrowed rule's are told apart."""
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
    parser.add_argument("--checkpoint", required=True, help="the dense network at home, vgg16 with width=0.25")
    parser.add_argument("--other", type=Path, help="another one, trained alike")
    parser.add_argument("--evaluations", type=int, default=300, help="of every search")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-replay"), help="where the runs lie")
    given = parser.parse_args()

    rows = [measured(journey, given) for journey in journeys(given)]
    keep("replay", {"evaluations": given.evaluations, "rows": rows})


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
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    main()
