"""What the commands print: whole names, plain text in a pipe, and the lines a person reads last."""

import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from samples import RESULT as SEARCHED

from rlprune.cli.output import show

ROWS: list[dict[str, Any]] = [
    {"group": "conv1", "tied": 2, "channels": 64, "kept": 16, "keep_ratio": 0.25},
    {"group": "layer1.0.conv1", "tied": 0, "channels": 64, "kept": 48, "keep_ratio": 0.75},
]
RESULT: dict[str, Any] = SEARCHED | {"run": "runs/vgg16-0.3", "plan": "runs/vgg16-0.3/plan.json", "table": ROWS}


def shown(command: str, result: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        show(command, result, console)
    return capture.get()


@pytest.mark.parametrize("command", ["search", "replay"])
def test_a_search_ends_with_three_lines(command: str) -> None:
    assert shown(command, RESULT).rstrip("\n").split("\n\n")[-1].splitlines() == [
        "accuracy  83.12 % → 79.84 % (test; one-shot before fine-tuning 38.20 %)",
        "MACs      19.7 M → 5.90 M (kept 30.0 %, removed 70.0 %; params 923 k → 114 k)",
        "results   runs/vgg16-0.3 (plan: plan.json)",
    ]


def test_a_search_says_what_was_asked_and_what_it_took() -> None:
    lines = shown("search", RESULT).splitlines()
    assert lines[:2] == [
        "vgg16 on cifar10: keep ≤ 30 % of the MACs (remove ≥ 70 %)",
        "300 evaluations, 4 min 12 s in all",
    ]


def test_the_table_has_a_row_a_group_and_bars_as_long_as_the_ratios() -> None:
    lines = shown("search", RESULT).splitlines()
    first, second = (next(line for line in lines if line.startswith(row["group"] + " ")) for row in ROWS)
    assert first.split()[:5] == ["conv1", "64", "16", "25.0", "%"]
    assert "+2" in first
    assert "+" not in second
    assert 3 * first.count("█") == second.count("█") > 0


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize(
    "name", ["a", "features.denseblock4.denselayer32.conv2", "x" * 90, "[bold]not markup[/bold]", ":x:"]
)
def test_group_names_and_numbers_stay_whole(name: str, width: int) -> None:
    text = shown("search", {**RESULT, "table": [{**ROWS[0], "group": name}]}, width)
    row = next(line for line in text.splitlines() if line.startswith(name + " "))
    assert row[len(name) :].split()[:5] == ["64", "16", "25.0", "%", "+2"]
    assert "…" not in text


@pytest.mark.parametrize("name", ["conv1", "features.denseblock4.denselayer32.conv2"])
def test_a_table_fits_80_columns_where_it_can(name: str) -> None:
    text = shown("search", {**RESULT, "table": [{**ROWS[0], "group": name}]})
    assert max(map(cell_len, text.splitlines())) <= 80


def test_a_pipe_gets_no_control_characters_and_a_terminal_the_same_words() -> None:
    console = Console(width=80, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        show("search", RESULT, console)
    plain = shown("search", RESULT)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", capture.get()) == plain


@pytest.mark.parametrize(
    ("accuracies", "line"),
    [
        ((0.8, 0.4, None), "accuracy  80.00 % → 40.00 % (test; one-shot, not fine-tuned)"),
        ((None, 0.4, 0.7), "accuracy  70.00 % (test; one-shot before fine-tuning 40.00 %)"),
        ((0.8, None, 0.7), "accuracy  80.00 % → 70.00 % (test)"),
        ((None, 0.4, None), "accuracy  40.00 % (test; one-shot, not fine-tuned)"),
    ],
)
def test_accuracies_that_were_not_measured_are_left_out(accuracies: tuple[float | None, ...], line: str) -> None:
    names = ("dense_accuracy", "oneshot_accuracy", "finetuned_accuracy")
    assert line in shown("search", RESULT | dict(zip(names, accuracies, strict=True))).splitlines()


def test_prune_shows_the_table_the_cost_and_the_folder() -> None:
    absent = (
        "run",
        "plan",
        "data",
        "dense_accuracy",
        "oneshot_accuracy",
        "finetuned_accuracy",
        "evaluations",
        "seconds",
    )
    result = {key: value for key, value in RESULT.items() if key not in absent} | {"pruned": "out/pruned"}
    text = shown("prune", result)
    assert text.startswith("vgg16: keep ≤ 30 %")
    assert "accuracy" not in text
    assert text.endswith("params 923 k → 114 k)\nresults   out/pruned\n")
    assert "accuracy  38.20 %" in shown("prune", result | {"oneshot_accuracy": 0.382})


def test_train_finetune_and_eval() -> None:
    size = {"test_accuracy": 0.8, "test_loss": 0.61234, "macs": 5_900_000, "params": 114_452}
    assert shown("train", size | {"checkpoint": "dense.safetensors", "epochs": 30, "seconds": 400}).splitlines() == [
        "accuracy  80.00 % (test; loss 0.6123)",
        "MACs      5.90 M (params 114 k)",
        "epochs    30 (6 min 40 s)",
        "results   dense.safetensors",
    ]
    assert shown(
        "finetune", {"pruned": "p", "before": 0.4, "after": 0.8, "epochs": 5, "seconds": 3.04}
    ).splitlines() == ["accuracy  40.00 % → 80.00 % (test)", "epochs    5 (3.0 s)", "results   p"]
    assert shown("eval", size | {"what": "p", "macs_ratio": 0.3, "params_ratio": None}).splitlines() == [
        "network   p",
        "accuracy  80.00 % (test; loss 0.6123)",
        "MACs      5.90 M (kept 30.0 %, removed 70.0 %)",
        "params    114 k",
    ]


def test_export_prints_text_untouched_or_names_the_file() -> None:
    text = "group,kept\n[red]a :smile: " + "b" * 100 + ",3\n"
    assert shown("export", {"text": text}) == text
    assert shown("export", {"path": "a/" + "b" * 100}) == "results   a/" + "b" * 100 + "\n"


def test_inspect_names_groups_refusals_and_the_smallest_budget() -> None:
    group = {"group": "conv1", "channels": 64, "macs_share": 0.125, "params_share": 0.0301, "traps": ["is odd"]}
    layers = {
        "producers": ["conv1", "layer1.0.conv2", "layer1.1.conv2"],
        "consumers": ["layer1.0.conv1", "b", "c"],
        "ties": ["sum in layer1.0", "sum in layer1.1"],
    }
    other = {"group": "x" * 60, "producers": ["x" * 60], "consumers": [], "ties": []}
    result = {
        "model": "resnet18",
        "image_size": 32,
        "macs": 557_000_000,
        "params": 11_170_000,
        "groups": [group | layers, group | other],
        "blocks": [
            {"block": "layer1.1", "groups": ["layer1.1.conv1"], "remains": "", "macs_share": 0.25, "params_share": 0.5}
        ],
        "refused": {"fc": "its outputs are the classes", "head": "its outputs are the classes"},
        "smallest_macs": 0.00123,
        "smallest_params": 0.00004,
    }
    text = shown("inspect", result)
    assert text.startswith("resnet18: 557 M MACs at image size 32, 11.2 M parameters\n")
    row = next(line for line in text.splitlines() if line.startswith("conv1 "))
    assert row.split()[:6] == ["conv1", "64", "12.5", "%", "3.0", "%"]
    for words in ("x" * 60, "layer1.0.conv2", "+1", "(sum)", "layer1.0.conv1", "+2", "cut to its minimum"):
        assert words in text
    assert "…" not in text
    assert f"  conv1, {'x' * 60}: is odd" in " ".join(text.split()).replace("traps conv1", "traps   conv1")
    assert "  fc, head: its outputs are the classes" in text
    # Rounded up: a budget that is asked for as printed must be feasible.
    assert "macs=0.002, params=0.001" in text
    assert "never cut" not in shown("inspect", result | {"refused": {}})
    block = next(line for line in text.splitlines() if line.startswith("layer1.1 "))
    assert block.split() == ["layer1.1", "25.0", "%", "50.0", "%", "its", "input", "layer1.1.conv1"]
    assert "--decide" not in shown("inspect", result | {"blocks": []})


def standing(method: str, loss: float, deviation: float | None, **more: Any) -> dict[str, Any]:
    record: dict[str, Any] = {"method": method, "search_loss": loss, "search_loss_sd": deviation, "remarks": []}
    for name in ("search_accuracy", "test_accuracy", "tuned_accuracy"):
        record |= {name: 0.413, f"{name}_sd": deviation}
    return record | {"tuned_accuracy": None, "evaluations": 66.7, "seconds": 61.24, "own_share": 0.256} | more


COMPARED: dict[str, Any] = {
    "run": "runs/compare",
    "model": "vgg16",
    "data": "cifar10",
    "budget_words": "keep ≤ 30 % of the MACs (remove ≥ 70 %)",
    "evaluations": 300,
    "seeds": 3,
    "seconds": 252.4,
    "dense_accuracy": 0.8312,
    "methods": [
        standing("sensitivity", 1.7041, 0.0324),
        standing("ppo", 2, 0.004, remarks=["ppo, seed 1: the policy collapsed: all walks end in one plan"]),
    ],
    "verdict": "ppo does not beat the best rival (sensitivity): it is behind by 9.0 ± 1.0 points of test accuracy",
}


def test_a_comparison_has_a_row_a_method_its_remarks_and_the_verdict_last() -> None:
    lines = shown("compare", COMPARED).splitlines()
    assert lines[:2] == [
        "vgg16 on cifar10: keep ≤ 30 % of the MACs (remove ≥ 70 %)",
        "3 runs of every method, each at most 300 evaluations, 4 min 12 s in all",
    ]
    row = next(line for line in lines if line.startswith("sensitivity"))
    assert " ".join(row.split()) == "sensitivity 1.704 ± 0.032 41.3 ± 3.2 41.3 ± 3.2 67 61.2 26 %"
    assert "ppo, seed 1: the policy collapsed: all walks end in one plan" in lines
    assert "dense     83.12 % (test accuracy)" in lines
    assert lines[-1] == COMPARED["verdict"]
    assert max(cell_len(line) for line in lines[:-1]) <= 80


def test_a_comparison_of_one_run_has_no_spreads_and_fine_tuning_a_column() -> None:
    one = standing("uniform", 1.5, None, tuned_accuracy=0.75, tuned_accuracy_sd=None)
    text = shown("compare", COMPARED | {"seeds": 1, "methods": [one], "verdict": ""})
    assert "1 run of every method" in text
    assert "±" not in text
    row = next(line for line in text.splitlines() if line.startswith("uniform"))
    assert " ".join(row.split()) == "uniform 1.500 41.3 41.3 75.0 67 61.2 26 %"
    assert text.rstrip().endswith("(comparison.png, cells.csv, curves.csv)")
