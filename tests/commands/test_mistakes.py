"""What cannot be used is told in one message, with exit code 2, before anything is written."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rlprune
from rlprune.errors import UserError


@pytest.fixture
def tell(run: Callable[..., Any], shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command that must fail, with the settings of a search below those given; returns what it tells."""
    monkeypatch.chdir(tmp_path)

    def tell(command: str, *arguments: object, **given: object) -> str:
        settings = (shop.search | given) if command == "search" else given
        flags = [part for name, value in settings.items() if value for part in (f"--{name.replace('_', '-')}", value)]
        before = listing(tmp_path, shop.root)
        code, out, err = run(command, *arguments, *flags)
        assert (code, out) == (2, ""), err
        assert "Traceback" not in err
        # What click itself finds starts with "Error", after a line on the usage.
        _, mark, message = err.partition("rlprune: error: " if "rlprune: error: " in err else "Error: ")
        assert mark
        assert listing(tmp_path, shop.root) == before
        return message

    return tell


def listing(*roots: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for root in roots for path in root.rglob("*") if path.is_file()) + [
        (path, 0) for root in roots for path in sorted(root.rglob("*")) if path.is_dir()
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "resnt20"}, "unknown model 'resnt20': did you mean 'resnet20'?"),
        ({"model": "nowhere.py:make"}, "there is no file nowhere.py"),
        ({"data": "cifar11"}, "unknown data 'cifar11': did you mean 'cifar10"),
        ({"data": "folder:nowhere"}, "'folder:nowhere' does not exist: expected a folder with train/CLASS/*.jpg"),
        ({"agent": "pppo"}, "unknown agent 'pppo': did you mean 'ppo'?"),
        ({"criterion": "tailor"}, "unknown criterion 'tailor': did you mean 'taylor'?"),
        ({"evalutions": 3}, "--evaluations"),
        ({"model_args": "widht=8"}, "unexpected keyword argument 'widht'"),
        ({"model_args": "width"}, "write name=value, such as width=0.25"),
        ({"budget": "0"}, "is out of range: it is the fraction to keep, above 0 and at most 1"),
        ({"budget": "1.5"}, "budget macs=1.5 is out of range"),
        ({"budget": "-0.3"}, "budget macs=-0.3 is out of range"),
        ({"budget": "nan"}, "budget macs=nan is out of range"),
        ({"budget": "abc"}, "budget macs=abc is not a number: expected a fraction to keep such as 0.3"),
        ({"budget": "mac=0.3"}, "unknown budget resource 'mac': did you mean 'macs'?"),
        ({"budget": "macs=0.3,macs=0.4"}, "names macs twice"),
        ({"budget": "0.0001"}, "budget macs=0.0001 is below what is feasible"),
        ({"budget": None}, "--budget is missing: say what may be kept"),
        ({"reward": "los"}, "unknown reward 'los': did you mean 'loss'?"),
        ({"reward": "balance"}, "expected weights of at least 0"),
        ({"reward": "balance:macs=x"}, "'x' is not a number"),
        ({"reward": "balance:flops=1"}, "unknown resource of the reward 'flops'"),
        ({"reward": "balance:macs=-1"}, "expected weights of at least 0"),
        ({"reward": "loss:macs=1"}, "unknown reward 'loss:macs=1'"),
        ({"evaluations": 11}, "--evaluations 11 is too few: the sensitivities of 3 groups and the first plans need 12"),
        ({"evaluations": "many"}, "evaluations is 'many': expected a whole number"),
        ({"mean": "0.5,0.5"}, "mean is 0.5, 0.5: expected three numbers, for red, green and blue"),
        ({"std": "0.5,0,0.5"}, "expected three numbers above 0"),
        ({"search_images": 1000}, "are more than the 150 training images"),
        ({"device": "cdua"}, "unknown device 'cdua': did you mean 'cuda'?"),
        ({"checkpoint": "nowhere.pt"}, "the checkpoint nowhere.pt does not exist"),
        ({"config": "nowhere.yaml"}, "cannot read nowhere.yaml: No such file or directory"),
        ({"criterion": "bn-scale"}, "criterion bn-scale does not apply: the channels of 'last' pass no batch norm"),
        ({"lr": 0.0, "batch_size": "1"}, "batch_size is 1: expected at least 2"),
    ],
    ids=repr,
)
def test_settings_of_a_search(tell: Callable[..., str], given: dict[str, Any], message: str) -> None:
    assert message in tell("search", **given)


def test_the_smallest_feasible_budget_is_told_and_works(tell: Callable[..., str], shop: Any, tmp_path: Path) -> None:
    told = tell("search", budget="0.0001", min_channels=3)
    smallest = told.split()[-1]
    assert f"the smallest possible is {smallest}" in told
    settings = shop.search | {"budget": smallest, "min_channels": 3, "finetune_epochs": 0}
    result = rlprune.search(**settings, out=tmp_path / "run")
    assert [row["kept"] for row in result["table"]] == [3, 3, 3]


def test_a_device_that_is_not_there(tell: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device 'cuda' is not present on this machine: use 'auto' or 'cpu'" in tell("search", device="cuda")


@pytest.mark.parametrize("command", ["search", "train", "prune", "finetune", "replay"])
@pytest.mark.parametrize("out", ["file/inside", "/proc/nowhere/inside"])
def test_an_unusable_out_is_noticed_before_any_work(
    tell: Callable[..., str],
    shop: Any,
    searched: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    out: str,
) -> None:
    monkeypatch.setattr("rlprune.workloads.workload.read_data", pytest.fail)
    (tmp_path / "file").touch()
    common = {
        "search": ((), {}),
        "train": ((), shop.settings),
        "prune": ((), {"plan": searched.folder}),
        "finetune": ((searched.folder,), {}),
        "replay": ((searched.folder,), {}),
    }
    arguments, settings = common[command]
    assert f"cannot write to {Path(out) if command != 'train' else Path(out).parent}" in tell(
        command, *arguments, **settings, out=out
    )


@pytest.mark.parametrize("command", ["search", "prune", "finetune", "replay"])
def test_an_out_that_is_taken_is_noticed_before_any_work(
    tell: Callable[..., str], searched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("rlprune.workloads.workload.read_data", pytest.fail)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    arguments = {"search": (), "prune": ("--plan", searched.folder)}.get(command, (searched.folder,))
    assert "choose another --out" in tell(command, *arguments, out="taken")
    assert "choose another --out" in tell(command, *arguments, out="taken/thesis.tex")


def of_another_width(weights: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor[:4].clone() if tensor.dim() else tensor for name, tensor in weights.items()}, path)


def truncated(weights: dict[str, torch.Tensor], path: Path) -> None:
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-100])


def with_nan(weights: dict[str, torch.Tensor], path: Path) -> None:
    weights["head.bias"][1] = float("nan")
    save_file(weights, path)


def pickled(weights: dict[str, torch.Tensor], path: Path) -> None:
    path.write_bytes(pickle.dumps(Path("a pickle may run code")))


def empty(weights: dict[str, torch.Tensor], path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (of_another_width, "stem.weight: checkpoint has (4, 3, 3, 3), {model} expects (16, 3, 3, 3)"),
        (truncated, "is truncated or no checkpoint"),
        (with_nan, "'head.bias' holds NaN or infinite values"),
        (pickled, "only weights are loaded"),
        (empty, "is empty"),
    ],
)
def test_checkpoints(
    tell: Callable[..., str],
    shop: Any,
    searched: Any,
    tmp_path: Path,
    spoil: Callable[[dict[str, torch.Tensor], Path], None],
    message: str,
) -> None:
    bad = tmp_path / "bad.safetensors"
    if spoil is pickled:
        bad = tmp_path / "bad.pt"
    spoil(load_file(shop.checkpoint), bad)
    message = message.format(model=shop.settings["model"])
    assert message in tell("search", checkpoint=bad)
    assert message in tell("prune", plan=searched.folder, checkpoint=bad)
    assert message in tell("replay", searched.folder, checkpoint=bad)
    assert message in tell("eval", **shop.settings, checkpoint=bad)


def test_images(tell: Callable[..., str], shop: Any, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / "images" / part / name).mkdir(parents=True)
    assert "no images in" in tell("search", data="folder:images")
    for folder in (tmp_path / "images").glob("*/*"):
        for number in range(3):
            (folder / f"{number}.png").write_bytes(b"no image at all")
    small = {"search_images": 1, "calibration_images": 1, "image_size": 16}
    assert f"{Path('images') / 'train' / 'a' / '0.png'}" in tell("search", data="folder:images", **small)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("prune", ("--plan", "nowhere"), "--plan nowhere does not exist"),
        ("prune", ("--ratios", "table.csv"), "--model is missing: a table of ratios does not say"),
        ("prune", ("--ratios", "table.csv", "--model", "resnet20"), "--checkpoint is missing"),
        ("prune", ("--plan", "table.csv"), "--plan table.csv is a table of ratios: give it as --ratios table.csv"),
        ("prune", ("--plan", "rows.json"), "--plan rows.json is a table of ratios: give it as --ratios rows.json"),
        ("prune", ("--ratios", "junk.json"), "no table of ratios: a plan is given as --plan junk.json"),
        ("prune", ("--ratios", "nowhere.csv"), "nowhere.csv does not exist: expected a table of ratios"),
        ("prune", ("--ratios", "."), ". is a folder: expected a table of ratios"),
        ("prune", ("--ratios", "table.csv", "--plan", "junk.json"), "are two plans: give one of them"),
        ("prune", ("--plan", "junk.json"), "junk.json is not JSON"),
        ("prune", (), "--plan is missing"),
        ("finetune", ("nowhere",), "nowhere holds no pruned network"),
        ("finetune", (), "RUN_OR_PRUNED is missing"),
        ("eval", ("nowhere",), "nowhere holds no pruned network"),
        ("eval", (), "RUN_OR_PRUNED is missing"),
        ("eval", ("--model", "resnet20"), "--checkpoint is missing"),
        ("eval", ("nowhere", "--model", "resnet20"), "and not both"),
        ("replay", ("nowhere",), "nowhere holds no policy: expected a run folder whose search has ended"),
        ("export", ("nowhere",), "cannot read nowhere: No such file"),
        ("export", ("junk.json",), "junk.json is not JSON"),
        ("export", ("junk.json", "--format", "parquet"), "--out is missing: parquet is binary"),
        ("export", ("junk.json", "--format", "xlsx"), "unknown format 'xlsx'"),
        ("inspect", (), "--model is missing"),
        ("inspect", ("--model", "vgg17"), "unknown model 'vgg17': did you mean 'vgg1"),
        ("train", ("--model", "resnet20", "--out", "."), "--out . is a folder: name a file"),
    ],
    ids=repr,
)
def test_other_verbs(
    tell: Callable[..., str], tmp_path: Path, command: str, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "table.csv").write_text("group,keep_ratio\nstem,0.5\n")
    (tmp_path / "junk.json").write_text("{")
    (tmp_path / "rows.json").write_text('[{"group": "stem", "keep_ratio": 0.5}]')
    assert message in tell(command, *arguments)


def test_images_of_other_classes(tell: Callable[..., str], searched: Any) -> None:
    assert "digits has 10 classes and the network in" in tell("eval", searched.folder, "--data", "digits")
    assert "tells 3 apart" in tell("finetune", searched.folder, "--data", "digits")


@pytest.mark.parametrize("command", ["train", "search", "prune", "finetune", "eval", "replay", "export", "inspect"])
def test_functions_refuse_unknown_settings(command: str) -> None:
    near = {"source": "sorce", "model": "modell"}
    name = "source" if command in ("finetune", "export", "replay") else "model"
    with pytest.raises(UserError, match=f"unknown setting '{near[name]}': did you mean '{name}'"):
        getattr(rlprune, command)(**{near[name]: "a"})
