import tempfile
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rlprune import registry
from rlprune.config.commands import COMMANDS, Eval, Export, Finetune, Prune, Replay, Search, Train
from rlprune.config.options import Settings
from rlprune.config.resolve import as_dict, differences, resolve, sections, spelled, to_yaml
from rlprune.errors import UserError
from rlprune.utils.arguments import parse_model_args

REQUIRED: dict[str, dict[str, Any]] = {
    "train": {"model": "vgg16"},
    "search": {"model": "vgg16", "budget": 0.3},
    "compare": {"model": "vgg16", "budget": 0.3},
    "prune": {"plan": "plan.json"},
    "finetune": {"source": "runs/a"},
    "eval": {"source": "runs/a"},
    "replay": {"source": "runs/a"},
    "export": {"source": "runs/a"},
    "report": {"runs": ["runs/a", "runs/b"]},
    "inspect": {"model": "vgg16"},
    "bench": {"source": "runs/a"},
    "methods": {},
}


def search(**settings: object) -> Search:
    return resolve(Search, REQUIRED["search"] | settings)


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_explicit_settings_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "model: resnet20\nbudget: 0.5\nevaluations: 40\nseed: 7\n")
    config = resolve(Search, {"evaluations": "50", "model": "vgg16"}, file)
    assert (config.model, config.evaluations) == ("vgg16", 50)
    assert (config.budget, config.seed) == (0.5, 7)
    assert (config.agent, config.criterion, config.device) == ("ppo", "l1", "auto")


def test_none_given_explicitly_takes_back_what_the_file_says(tmp_path: Path) -> None:
    file = written(tmp_path, "epochs: 3\n")
    assert resolve(Train, {"model": "vgg16", "epochs": None}, file).epochs is None


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "version: 1\n"])
def test_a_file_may_say_nothing(tmp_path: Path, text: str) -> None:
    assert resolve(Train, {"model": "vgg16"}, written(tmp_path, text)) == resolve(Train, {"model": "vgg16"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evalutions: 3\n", r"unknown setting in .*settings\.yaml 'evalutions': did you mean 'evaluations'\?"),
        ("3: 4\n", r"unknown setting in .*settings\.yaml '3'"),
        ("- model\n", r"settings\.yaml holds list: expected settings"),
        ("model: [\n", r"settings\.yaml is not YAML: .*line 2"),
        ("version: 2\n", r"settings\.yaml has format version 2; this rlprune reads version 1"),
        ("seed: null\n", r"seed is None in .*settings\.yaml: expected a whole number"),
        ("model: !!python/object/apply:os.getcwd []\n", r"settings\.yaml is not YAML"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve(Search, REQUIRED["search"], written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*absent\.yaml: No such file"):
        resolve(Search, REQUIRED["search"], tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evalutions": 3}, r"unknown setting 'evalutions': did you mean 'evaluations'\?"),
        ({"agent": "recurrent-ppo"}, r"is for --mode runtime: take one of ddpg, ppo, sac, td3"),
        ({"agent": "pppo"}, r"unknown agent 'pppo': did you mean 'ppo'\? known: ddpg, ppo, recurrent-ppo, sac, td3"),
        ({"criterion": "bn_scale"}, r"unknown criterion 'bn_scale': did you mean 'bn-scale'\?"),
        ({"reward": "los"}, r"unknown reward 'los': did you mean 'loss'\?"),
        ({"evaluations": "3.5"}, r"evaluations is '3\.5': expected a whole number"),
        ({"evaluations": 3.0}, r"evaluations is 3\.0: expected a whole number"),
        ({"evaluations": True}, r"evaluations is True: expected a whole number"),
        ({"evaluations": None}, r"evaluations is None: expected a whole number"),
        ({"evaluations": 0}, r"evaluations is 0: expected at least 1"),
        ({"seed": -1}, r"seed is -1: expected at least 0"),
        ({"seed": 2**32}, r"seed is 4294967296: expected at most 4294967295"),
        ({"round_to": "0"}, r"round_to is 0: expected at least 1"),
        ({"round_to": "atuo"}, r"round_to is 'atuo': expected a whole number or auto"),
        ({"backend": "onxruntime"}, r"unknown backend 'onxruntime': did you mean 'onnxruntime'\?"),
        ({"finetune_epochs": -1}, r"finetune_epochs is -1: expected at least 0"),
        ({"batch_size": 1}, r"batch_size is 1: expected at least 2"),
        ({"lr": 0}, r"lr is 0\.0: expected more than 0"),
        ({"lr": "fast"}, r"lr is 'fast': expected a number"),
        ({"lr": True}, r"lr is True: expected a number"),
        ({"lr": "nan"}, r"lr is 'nan': expected a number"),
        ({"lr": float("inf")}, r"lr is inf: expected a number"),
        ({"download": "yes"}, r"download is 'yes': expected true or false"),
        ({"download": 1}, r"download is 1: expected true or false"),
        ({"model": 16}, r"model is 16: expected text"),
        ({"model": " "}, r"model is ' ': expected text"),
        ({"out": 3}, r"out is 3: expected a path"),
        ({"out": ""}, r"out is '': expected a path"),
        ({"mean": "0.5;0.5"}, r"mean is '0\.5;0\.5': expected numbers such as 0\.49,0\.48,0\.45"),
        ({"std": 0.5}, r"std is 0\.5: expected numbers"),
        ({"budget": [0.3]}, r"budget is \[0\.3\]: expected a number or text"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        search(**settings)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Train, {}, r"^--model is missing: "),
        (Search, {"model": "vgg16"}, r"^--budget is missing: "),
        (Prune, {}, r"^--plan is missing: .*--ratios"),
        (Finetune, {}, r"^RUN_OR_PRUNED is missing: "),
        (Eval, {}, r"^RUN_OR_PRUNED is missing: .*--model"),
        (Replay, {}, r"^RUN_OR_POLICY is missing: "),
        (Export, {}, r"^RUN_OR_PLAN is missing: "),
        (Export, {"source": "runs/a", "format": "parquet"}, r"^--out is missing: "),
    ],
)
def test_what_is_missing_is_named_as_on_the_command_line(
    cls: type[Settings], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        resolve(cls, settings)


def test_the_balance_reward_needs_no_budget() -> None:
    assert resolve(Search, {"model": "vgg16", "reward": "balance:macs=1,params=0.5"}).budget is None


def test_values_are_converted() -> None:
    config = search(
        lr="1e-3", seed="7", mean="0.49, 0.48,0.45", std=[0.2, "0.2", 0.25], out="~/runs", data_root=Path("images")
    )
    assert (config.lr, config.seed) == (0.001, 7)
    assert config.mean == (0.49, 0.48, 0.45)
    assert config.std == (0.2, 0.2, 0.25)
    assert (config.out, config.data_root) == (Path.home() / "runs", Path("images"))


@pytest.mark.parametrize(
    ("budget", "expected"), [("0.3", 0.3), (0.3, 0.3), (1, 1.0), ("macs=0.3,params=0.4", "macs=0.3,params=0.4")]
)
def test_a_bare_budget_becomes_a_number(budget: object, expected: object) -> None:
    assert search(budget=budget).budget == expected


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        search().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_verb_reads_back_what_it_wrote(tmp_path: Path, command: str) -> None:
    config = resolve(COMMANDS[command], REQUIRED[command])
    text = to_yaml(config)
    assert yaml.safe_load(text) == {"version": 1} | as_dict(config)
    assert resolve(COMMANDS[command], {}, written(tmp_path, text)) == config


_number = st.floats(min_value=1e-9, max_value=1.0)
_name = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


@given(
    settings=st.fixed_dictionaries(
        {},
        optional={
            "model": _name,
            "data": _name,
            "budget": _number | st.just("macs=0.3,params=0.4"),
            "lr": _number,
            "mean": st.tuples(_number, _number, _number),
            "seed": st.integers(0, 2**32 - 1),
            "download": st.booleans(),
            "criterion": st.sampled_from(registry.names("criterion")),
            "train_epochs": st.none() | st.integers(0, 10**6),
            "out": _name.map(lambda name: Path("runs") / name),
        },
    )
)
def test_any_configuration_survives_the_file(settings: dict[str, Any]) -> None:
    config = search(**settings)
    with tempfile.TemporaryDirectory() as folder:
        assert resolve(Search, {}, written(Path(folder), to_yaml(config))) == config


def test_differences_name_both_sides() -> None:
    there = as_dict(search(evaluations=300, out="runs/a"))
    now = as_dict(search(evaluations=100, lr=0.1, out="runs/a"))
    assert differences(there, there) == []
    assert differences(there, now) == ["lr: not set (there) / 0.1 (now)", "evaluations: 300 (there) / 100 (now)"]
    assert differences({"a": 1}, {"b": 2}) == ["a: 1 (there) / not set (now)", "b: not set (there) / 2 (now)"]


@pytest.mark.parametrize("command", COMMANDS)
def test_sections_hold_every_field_once(command: str) -> None:
    listed = [entry.name for entries in sections(COMMANDS[command]).values() for entry in entries]
    assert sorted(listed) == sorted(entry.name for entry in fields(COMMANDS[command]))
    flags = [spelled(entry) for entry in fields(COMMANDS[command])]
    assert len(set(flags)) == len(flags)


def test_data_is_that_of_the_run_or_plan_where_there_is_one() -> None:
    assert search().data == "digits"
    commands = ("prune", "finetune", "eval", "replay")
    assert [resolve(COMMANDS[command], REQUIRED[command]).data for command in commands] == [None] * 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(("setting", "kind"), [("criterion", "criterion"), ("agent", "agent")])
def test_methods_are_taken_with_their_settings(setting: str, kind: str) -> None:
    for name in registry.names(kind):
        assert getattr(search(**{setting: name}), setting) == name
    with pytest.raises(UserError, match=f"unknown {setting} 'zzz': known: .*{registry.names(kind)[0]}"):
        search(**{setting: "zzz"})


def test_settings_of_methods_are_checked() -> None:
    assert search(criterion="taylor:order=2").criterion == "taylor:order=2"
    with pytest.raises(UserError, match="unknown setting of criterion taylor 'ordr': did you mean 'order'"):
        search(criterion="taylor:ordr=2")
    with pytest.raises(UserError, match="criterion taylor:order=3: order is '3': expected 1 or 2"):
        search(criterion="taylor:order=3")


def test_arguments_of_a_network(tmp_path: Path) -> None:
    """A list and a mapping arrive as they are, from text, from Python and from a file, and again from what is kept."""
    args = {"layers": [8, 16], "act": "relu, or not", "stem": {"wide": True}, "rate": 1e-5}
    (tmp_path / "given.yaml").write_text(yaml.safe_dump({"model": "a", "budget": 0.5, "model_args": args}))
    (tmp_path / "text.yaml").write_text("model: a\nbudget: 0.5\nmodel_args: layers=[8,16],act=x\n")
    found = resolve(Search, {"model": "a", "budget": 0.5, "model_args": args})
    assert found == resolve(Search, {}, tmp_path / "given.yaml")
    assert parse_model_args(found.model_args) == args
    (tmp_path / "kept.yaml").write_text(to_yaml(found))
    assert resolve(Search, {}, tmp_path / "kept.yaml") == found
    assert parse_model_args(resolve(Search, {}, tmp_path / "text.yaml").model_args) == {"layers": [8, 16], "act": "x"}
    with pytest.raises(UserError, match=r"model_args is .*: expected a mapping of names to numbers.* or text"):
        resolve(Search, {"model": "a", "budget": 0.5, "model_args": {"net": object()}})
