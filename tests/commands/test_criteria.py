"""Several criteria, of which the agent chooses one for every group; or one for each group by name."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from workshop import NET, Interrupting, episodes, kept, kept_counts, same_weights

import rlprune
from rlprune.errors import UserError

GROUPS = ("stem", "inner", "last")


@pytest.fixture(scope="module")
def chosen(shop: Any) -> Any:
    """A finished search that chose between two criteria, in `folder`, its `settings` and `result`."""
    settings = shop.search | {"criterion": "l1,random", "evaluations": 30}
    folder = shop.root / "chosen"
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.search(**settings, out=folder))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def dense(shop: Any) -> Any:
    names: dict[str, Any] = {}
    exec(NET, names)
    net = names["make"](3)
    net.load_state_dict(load_file(shop.checkpoint))
    return net


def by_l1(shop: Any, counts: dict[str, int]) -> dict[str, list[int]]:
    """Channels with the largest sums of absolute weights; `inner` and `outer`, which are added up, each of mean 1."""
    net = dense(shop)

    def sums(layer: nn.Module) -> np.ndarray:
        found = layer.weight.detach().abs().flatten(1).sum(1).double().numpy()  # type: ignore[operator,union-attr]
        return np.asarray(found / found.mean())

    scores = {"stem": sums(net.stem), "inner": sums(net.inner) + sums(net.outer), "last": sums(net.last)}
    return {name: sorted(np.argsort(-scores[name], kind="stable")[:count].tolist()) for name, count in counts.items()}


def test_the_plan_says_which_criterion_every_group_has(chosen: Any, shop: Any) -> None:
    plan = json.loads((chosen.folder / "plan.json").read_text())
    assert plan["provenance"]["criterion"] == "l1,random"
    groups = {name: group["criterion"] for name, group in plan["groups"].items()}
    assert tuple(groups) == GROUPS
    rows = table(chosen.folder / "ratios.csv")
    assert [row["criterion"] for row in rows] == list(groups.values())
    assert [row["criterion"] for row in chosen.result["table"]] == list(groups.values())
    numbers = " ".join(str(["l1", "random"].index(name)) for name in groups.values())
    logged = {row["counts"]: float(row["loss"]) for row in episodes(chosen.folder)}
    assert logged[f"{kept_counts(chosen.folder)} {numbers}"] == chosen.result["search_loss"]
    assert "Criterion" in (chosen.folder / "report.html").read_text()
    counts = {name: len(indices) for name, indices in kept(chosen.folder).items()}
    expected = by_l1(shop, counts)
    order = np.random.default_rng(0).random(sum({"stem": 16, "inner": 32, "last": 48}.values()))
    for name, start in zip(GROUPS, (0, 16, 48), strict=True):
        size = {"stem": 16, "inner": 32, "last": 48}[name]
        if groups[name] == "random":
            best = np.argsort(-order[start : start + size], kind="stable")[: counts[name]]
            expected[name] = sorted(best.tolist())
    assert kept(chosen.folder) == expected


def test_every_plan_is_measured_once_and_starts_are_of_each_criterion(chosen: Any) -> None:
    rows = episodes(chosen.folder)
    assert {len(row["counts"].split()) for row in rows} == {6}
    assert len({row["counts"] for row in rows}) == len(rows) == 30
    curves = [row["counts"].split()[3:] for row in rows if row["stage"] == "sensitivity"]
    assert curves == [["0", "0", "0"]] * 10
    searched = [row["counts"].split()[3:] for row in rows if row["stage"] == "search"]
    assert searched[0] == ["0", "0", "0"]
    assert ["1", "1", "1"] in searched[:4]


def test_an_interrupted_one_ends_like_one_that_was_not(chosen: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**chosen.settings, out=folder, progress=Interrupting("searching", 19))
    assert "criterion" in json.loads((folder / "plan.json").read_text())["groups"]["stem"]
    result = rlprune.search(**chosen.settings, out=folder)
    aside = {"seconds": 0, "run": "", "plan": ""}
    assert result | aside == chosen.result | aside
    assert episodes(folder) == episodes(chosen.folder)
    assert (folder / "plan.json").read_text() == (chosen.folder / "plan.json").read_text()
    assert same_weights(folder, chosen.folder)
    with pytest.raises(UserError, match=r"criterion: l1,random \(there\) / l1 \(now\)"):
        rlprune.search(**chosen.settings | {"criterion": "l1"}, out=folder)


def test_a_policy_chooses_elsewhere(chosen: Any, shop: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    rlprune.train(**shop.settings, seed=1, epochs=1, out=other)
    settings = {"source": chosen.folder, "checkpoint": other, "device": "cpu"}
    result = rlprune.replay(**settings, out=tmp_path / "replayed", evaluations=3)
    assert result["evaluations"] == 3
    assert {row["criterion"] for row in result["table"]} <= {"l1", "random"}
    with pytest.raises(UserError, match=r"--criterion taylor leaves 1 to choose from.*trained with 2, l1,random"):
        rlprune.replay(**settings, criterion="taylor", out=tmp_path / "single")
    swapped = rlprune.replay(**settings, criterion="l1,taylor", out=tmp_path / "swapped")
    assert {row["criterion"] for row in swapped["table"]} <= {"l1", "taylor"}


def test_a_plan_keeps_its_criteria_where_it_is_cut_again(chosen: Any, tmp_path: Path) -> None:
    result = rlprune.prune(plan=chosen.folder, out=tmp_path / "cut", device="cpu")
    told = ("group", "kept", "criterion", "importance_kept")
    assert [[row[key] for key in told] for row in result["table"]] == [
        [row[key] for key in told] for row in chosen.result["table"]
    ]


def test_tunings_and_a_choice_go_together(shop: Any, tmp_path: Path) -> None:
    settings = shop.search | {"criterion": "l1,random", "tunings": 4, "finetune_epochs": 4}
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"PERTURBED": 2, "BEST": 1, "PICKS": 2}.items():
            patch.setattr(f"rlprune.agents.search.multi_fidelity.{name}", size)
        result = rlprune.search(**settings, out=tmp_path / "run")
    assert {len(row["counts"].split()) for row in table(tmp_path / "run" / "tunings.csv")} == {6}
    assert {row["criterion"] for row in result["table"]} <= {"l1", "random"}


def test_a_front_knows_the_criteria_of_its_plans(shop: Any, tmp_path: Path) -> None:
    """A policy of a range of budgets; its plans near another budget are projected with their criteria."""
    settings = shop.search | {"criterion": "l1,random", "budget": "0.1:0.3", "evaluations": 50}
    folder = tmp_path / "range"
    rlprune.search(**settings, out=folder)
    assert {len(row["counts"].split()) for row in table(folder / "front.csv")} == {6}
    result = rlprune.replay(source=folder, budget=0.2, evaluations=2, device="cpu", out=tmp_path / "replayed")
    assert result["macs_ratio"] <= 0.2
    assert {row["criterion"] for row in result["table"]} <= {"l1", "random"}


def test_one_criterion_for_each_group_by_name(shop: Any, searched: Any, tmp_path: Path) -> None:
    """Of `outer`, which is tied to `inner`, the pattern speaks, too; all others have the usual one."""
    settings = shop.search | {"criterion": "outer=random,stem=l1", "finetune_epochs": 0, "evaluations": 16}
    result = rlprune.search(**settings, out=tmp_path / "run")
    assert [row["criterion"] for row in result["table"]] == ["l1", "random", "l1"]
    assert {len(row["counts"].split()) for row in episodes(tmp_path / "run")} == {3}
    assert "criterion" not in searched.result["table"][0]
    counts = {name: len(indices) for name, indices in kept(tmp_path / "run").items()}
    by_norm = by_l1(shop, counts)
    assert [kept(tmp_path / "run")[name] for name in ("stem", "last")] == [by_norm["stem"], by_norm["last"]]
    drawn = np.random.default_rng(0).random(96)[16:48]
    assert kept(tmp_path / "run")["inner"] == sorted(np.argsort(-drawn, kind="stable")[: counts["inner"]].tolist())
    same = rlprune.prune(
        **shop.settings, checkpoint=shop.checkpoint, ratios=tmp_path / "run" / "ratios.csv",
        criterion=settings["criterion"], out=tmp_path / "cut",
    )  # fmt: skip
    assert [row["criterion"] for row in same["table"]] == ["l1", "random", "l1"]
    assert kept(tmp_path / "cut") == kept(tmp_path / "run")


def test_agents_choose_in_a_comparison_and_others_take_the_first(shop: Any, tmp_path: Path) -> None:
    settings = shop.search | {"criterion": "l1,random", "methods": "uniform,sensitivity,ppo", "seeds": 1}
    folder = tmp_path / "compared"
    rlprune.compare(**settings | {"evaluations": 20, "finetune_epochs": 0}, out=folder)
    cells = {row["method"]: row["counts"].split() for row in table(folder / "cells.csv")}
    assert {len(counts) for counts in cells.values()} == {6}
    assert cells["uniform"][3:] == cells["sensitivity"][3:] == ["0", "0", "0"]
    logged = [row["counts"] for row in episodes(folder)]
    assert len(set(logged)) == len(logged)
    assert any(text.split()[3:] != ["0", "0", "0"] for text in logged)
    uniform = json.loads((folder / "plans" / "uniform-0.json").read_text())
    assert {group["criterion"] for group in uniform["groups"].values()} == {"l1"}
    with pytest.raises(UserError, match="agents choose among several, and --methods uniform has none: add ppo"):
        rlprune.compare(**settings | {"methods": "uniform"}, out=tmp_path / "none")


def test_an_environment_that_chooses(shop: Any) -> None:
    """The loss of the last step is that of the network that is really cut, by the criteria of its plan."""
    env = rlprune.make_env(**shop.search | {"criterion": "l1,random"})
    env.reset()
    finished = False
    for action in (0.5, 0.1, 0.0, -0.1, 0.6, 0.0):
        _, _, finished, _, info = env.step(np.array([action], dtype=np.float32))
    assert finished
    assert info["counts"][3:].tolist() == [1, 0, 1]
    plan = env.unwrapped.plan()  # type: ignore[attr-defined]
    assert list(plan.criteria.values()) == ["random", "l1", "random"]
    drawn = np.random.default_rng(0).random(96)
    assert plan.kept["stem"] == tuple(sorted(np.argsort(-drawn[:16], kind="stable")[: info["counts"][0]].tolist()))
    assert plan.kept["inner"] == tuple(by_l1(shop, {"inner": int(info["counts"][1])})["inner"])
    assert info["loss"] == pytest.approx(removed_loss(shop, plan.kept), rel=1e-4)


def removed_loss(shop: Any, kept: dict[str, tuple[int, ...]]) -> float:
    """Weights cut by hand, statistics by one pass, the cross-entropy at the best temperature of a fine grid."""
    from rlprune.utils.progress import Progress
    from rlprune.workloads.workload import open_workload

    workload = open_workload(shop.settings | {"checkpoint": shop.checkpoint}, Progress())
    net = dense(shop)
    stem, inner, last = (torch.tensor(kept[name]) for name in GROUPS)
    with torch.no_grad():
        for layer, out, into in (
            (net.stem, stem, slice(None)), (net.inner, inner, stem), (net.outer, inner, inner), (net.last, last, inner),
        ):  # fmt: skip
            layer.weight = nn.Parameter(layer.weight[out][:, into])
        net.last.bias = nn.Parameter(net.last.bias[last])
        net.head.weight = nn.Parameter(net.head.weight[:, last])
        for norm, out in ((net.stem_norm, stem), (net.inner_norm, inner), (net.outer_norm, inner)):
            norm.weight, norm.bias = nn.Parameter(norm.weight[out]), nn.Parameter(norm.bias[out])
            norm.running_mean, norm.running_var = torch.zeros(len(out)), torch.ones(len(out))
            norm.momentum = None
            norm.reset_running_stats()
        net.train()(workload.calibration()[0])
        logits, labels = net.eval()(workload.search()[0]), workload.search()[1]
        scales = torch.logspace(-2, 2, 4001)
        return min(float(F.cross_entropy(logits * scale, labels)) for scale in scales)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ("l1,tailor", "unknown criterion 'tailor': did you mean 'taylor'?"),
        ("l1,taylor,l1", "--criterion l1,taylor,l1 names l1 twice: give it once"),
        ("stem=l1,l2", "names 'l2' beside a criterion of some groups"),
        ("stam=l1", "unknown group in --criterion 'stam': did you mean 'stem'?"),
        ("stem=l3", "unknown criterion 'l3': did you mean 'l2'?|unknown criterion 'l3': did you mean 'l1'?"),
    ],
)
def test_what_cannot_be_used(run: Callable[..., Any], shop: Any, tmp_path: Path, criterion: str, message: str) -> None:
    flags = [part for name, value in (shop.search | {"criterion": criterion}).items()
             for part in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    ended = run("search", *flags, "--out", tmp_path / "run")
    assert ended.code == 2
    assert any(each in ended.err for each in message.split("|"))
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decide": "channels,criteria"}, "name several, as in --criterion l1,taylor"),
        ({"mode": "runtime", "criterion": "l1,l2"}, "names several criteria, and nobody chooses here"),
        ({"criterion": "l1,l2", "evaluations": 12}, "need 13 before the agent takes a step"),
    ],
)
def test_where_nothing_is_chosen(shop: Any, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rlprune.search(**shop.search | given, out=tmp_path / "run")
    with pytest.raises(UserError, match="names several criteria, and nobody chooses here"):
        rlprune.prune(plan=tmp_path, criterion="l1,l2")
