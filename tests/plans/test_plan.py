import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.cost.exact import build_cost
from rlprune.errors import UserError
from rlprune.graph.structure import Block, Graph, Group
from rlprune.plans.counts import top_mask
from rlprune.plans.plan import PruningPlan, check_same_groups, make_plan
from rlprune.plans.ratio_table import ratio_table, rows
from rlprune.tracing.build import build_graph

GRAPH = Graph((Group("a", 4, 0, ("a",), ()), Group("b.0", 3, 4, ("b.0",), ())), (), (), (), {}, {})
MASK = np.array([True, False, False, True, False, True, False])
PLAN = PruningPlan({"a": (0, 3), "b.0": (1,)}, {"a": 4, "b.0": 3}, {"model": "vgg11"}, {"seed": 1})


def saved(folder: Path, **changes: Any) -> Path:
    """A plan's file with some of its entries replaced."""
    PLAN.save(folder / "plan.json")
    data = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(data | changes))
    return folder / "plan.json"


def test_round_trip(tmp_path: Path) -> None:
    assert PruningPlan.load(saved(tmp_path)) == PLAN


BLOCKS = Graph((*GRAPH.groups, Group("b.1", 2, 7, ("b.1",), ())), (), (), (), {}, {}, (Block("b", (1, 2), "act"),))
WITHOUT = np.array([True, False, False, True, False, False, False, False, False])


def test_a_plan_that_takes_out_a_block(tmp_path: Path) -> None:
    plan = make_plan(BLOCKS, WITHOUT, scores=np.ones(9), rises=np.array([0.1, 0.5, 0.0]))
    assert (plan.kept, plan.blocks) == ({"a": (0, 3), "b.0": (), "b.1": ()}, {"b": "act"})
    assert plan.ratios() == {"a": 0.5, "b.0": 0, "b.1": 0}
    assert plan.mask(BLOCKS).tolist() == WITHOUT.tolist()
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    assert json.loads((tmp_path / "plan.json").read_text())["blocks"] == {"b": "act"}
    assert "blocks" not in json.loads(saved(tmp_path).read_text())
    with pytest.raises(UserError, match="unknown residual block 'b'"):
        plan.mask(replace(BLOCKS, blocks=()))


def test_plans_for_what_a_plan_without_a_block_leaves() -> None:
    first = make_plan(BLOCKS, WITHOUT)
    second = PruningPlan({"a": (1,)}, {"a": 2})
    both = first.then(second)
    assert (both.kept, both.blocks) == ({"a": (3,), "b.0": (), "b.1": ()}, {"b": "act"})
    whole = PruningPlan({"a": (0, 1), "b.0": (0,), "b.1": (0, 1)}, {"a": 4, "b.0": 3, "b.1": 2})
    then = PruningPlan({"a": (0,), "b.0": (), "b.1": ()}, {"a": 2, "b.0": 1, "b.1": 2}, blocks={"b": "act"})
    assert (whole.then(then).kept, whole.then(then).blocks) == ({"a": (0,), "b.0": (), "b.1": ()}, {"b": "act"})


@pytest.mark.parametrize(
    ("blocks", "kept", "said"),
    [
        ({}, ([], []), "'b.0' keeps no channel, and no block that it belongs to is taken out"),
        ({"b": ""}, ([], [0]), "the block 'b' is taken out, and 'b.1' in it keeps channels"),
        ({"b": "", "c": ""}, ([], []), "'c' is taken out, and none of the groups is inside"),
        ({"b": 3}, ([], []), "is not a complete plan"),
        ({"b": ""}, ([], None), "is not a complete plan"),
    ],
)
def test_blocks_that_do_not_fit(tmp_path: Path, blocks: Any, kept: Any, said: str) -> None:
    groups = {f"b.{n}": {"channels": 3, "kept": mine} for n, mine in enumerate(kept)}
    with pytest.raises(UserError, match=re.escape(said)):
        PruningPlan.load(saved(tmp_path, groups=groups, blocks=blocks))


def test_layers_are_kept(tmp_path: Path) -> None:
    plan = replace(PLAN, layers={"a": ("a", "a.tied"), "b.0": ("b.0",)})
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    table = plan.table()
    assert table[["importance_kept", "sensitivity"]].isna().all().all()
    assert [row["sensitivity"] for row in rows(table)] == [None, None]
    assert table.drop(columns=["importance_kept", "sensitivity"]).to_dict("list") == {
        "group": ["a", "b.0"],
        "channels": [4, 3],
        "kept": [2, 1],
        "keep_ratio": [0.5, 0.333333],
        "layers": ["a a.tied", "b.0"],
    }
    assert "layers" not in PLAN.table()


def test_what_stays_of_the_importance_is_kept(tmp_path: Path) -> None:
    plan = make_plan(GRAPH, MASK, scores=np.array([2.0, 1, 1, 0, 0, 0, 0]), rises=np.array([0.1, 2.0]))
    # Where there is nothing to lose, nothing is lost.
    assert (plan.importance, plan.sensitivity) == ({"a": 0.5, "b.0": 1.0}, {"a": 0.1, "b.0": 2.0})
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    assert plan.table()["importance_kept"].tolist() == [0.5, 1.0]


def test_mask_and_back() -> None:
    assert PLAN.mask(GRAPH).tolist() == MASK.tolist()
    plan = make_plan(GRAPH, MASK)
    assert (plan.kept, plan.channels) == (PLAN.kept, PLAN.channels)
    assert plan.counts().tolist() == [2, 1]
    assert plan.ratios() == {"a": 0.5, "b.0": 1 / 3}


def test_mask_goes_by_name() -> None:
    turned = PruningPlan({"b.0": (1,), "a": (0, 3)}, {"b.0": 3, "a": 4})
    assert turned.mask(GRAPH).tolist() == MASK.tolist()


@pytest.mark.parametrize("kept", [[], [0, 4], [-1, 2], [1, 1], [2, 1], [0.5, 1], ["0"], None, 3], ids=str)
def test_impossible_channels(tmp_path: Path, kept: Any) -> None:
    path = saved(tmp_path, groups={"a": {"channels": 4, "kept": kept}})
    with pytest.raises(UserError, match=r"plan\.json"):
        PruningPlan.load(path)


def test_impossible_channels_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, groups={"a": {"channels": 4, "kept": [0, 4]}})
    with pytest.raises(UserError, match=re.escape("'a' must be ascending, different and within 0..3")):
        PruningPlan.load(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": None}, "not a complete plan"),
        ({"groups": {"a": {"kept": [0]}}}, "not a complete plan: KeyError('channels')"),
        ({"groups": {"a": {"channels": 4}}}, "not a complete plan: KeyError('kept')"),
        ({"groups": {"a": {"channels": 4, "kept": [0], "layers": 3}}}, "not a complete plan"),
        ({"groups": [1]}, "not a complete plan"),
        ({"groups": {"a": {"channels": 4, "kept": [0], "layers": [3]}}}, "not a complete plan"),
        ({"network": 3}, "not a complete plan"),
        ({"network": {"model": 3.5}}, 'not a complete plan: ValueError("the network\'s model is 3.5")'),
        ({"network": {"classes": 2**63}}, "not a complete plan"),
        ({"network": {"classes": 10**9}}, "the network's classes is 1000000000: expected 1 to 100000"),
        ({"network": {"classes": 0}}, "the network's classes is 0: expected 1 to 100000"),
        ({"network": {"image_size": 10**6}}, "the network's image_size is 1000000: expected 1 to 4096"),
        ({"network": {"image_size": -3}}, "the network's image_size is -3: expected 1 to 4096"),
        ({"network": {"image_size": float("nan")}}, "the network's image_size is nan"),
        ({"provenance": {"data_settings": {"image_size": 10**6}}}, "image_size is 1000000: expected 1 to 4096"),
        ({"provenance": {"data_settings": {"search_images": 1.5}}}, "search_images is 1.5: expected a whole number"),
        ({"provenance": {"data_settings": {"checkpoint": "a.pt"}}}, "unknown data setting 'checkpoint'"),
        ({"provenance": {"data_settings": 3}}, "not a complete plan"),
        ({"network": {"image_size": True}}, "not a complete plan"),
        ({"network": {"image_size": 0}}, "the network's image_size is 0: expected 1 to 4096"),
        ({"network": {"image_size": "5000x5"}}, "the network's image_size is 5000x5: expected at least 1 and at most"),
        ({"network": {"image_size": "large"}}, "the network's image_size is large: expected"),
        ({"network": {"channels": 2}}, "the network's channels is 2: expected 1, 3, 4"),
        ({"network": {"channels": True}}, "the network's channels is True"),
        ({"network": {"channels": 1.0}}, "the network's channels is 1.0"),
        ({"provenance": {"data_settings": {"image_size": "0x5"}}}, "image_size is 0x5: expected at least 1"),
        ({"provenance": {"data_settings": {"image_size": 1.5}}}, "image_size is 1.5: expected a whole number, or"),
        ({"provenance": {"data_settings": {"channels": 0}}}, "channels is 0"),
        ({"provenance": {"data_settings": {"channels": 2}}}, "channels is 2: expected 1, 3, 4"),
        ({"version": 2}, "has format version 2; this rlprune reads up to 1"),
        ({"version": "1"}, "has format version 1"),
        ({"format": "other"}, "is not a file of the format rlprune-plan"),
    ],
)
def test_damaged_files(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        PruningPlan.load(saved(tmp_path, **changes))


def test_images_of_any_shape(tmp_path: Path) -> None:
    network, kept = {"image_size": "12x20", "channels": 1}, {"image_size": "12x20", "channels": 4}
    plan = PruningPlan.load(saved(tmp_path, network=network, provenance={"data_settings": kept}))
    assert (plan.network, plan.provenance["data_settings"]) == (network, kept)


@pytest.mark.parametrize(("content", "said"), [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "format")])
def test_other_files(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        PruningPlan.load(tmp_path / "plan.json")


def test_depthwise_layers_are_tied() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=4), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
    net.extend([nn.Flatten(), nn.Linear(4, 2)])
    graph = build_graph(net, torch.zeros(1, 3, 2, 2))
    table = ratio_table(graph, build_cost(graph), make_plan(graph, np.arange(4) < 2))
    assert (table["tied"].tolist(), table["layers"].tolist()) == ([1], ["0 1"])
    # 3 inputs and the bias; 1 and the bias; the norm's two.
    assert (table["params_before"].item(), table["params_after"].item()) == (4 * (4 + 2 + 2), 2 * (4 + 2 + 2))
    assert (table["macs_before"].item(), table["macs_after"].item()) == (4 * 4 * (3 + 1), 4 * 2 * (3 + 1))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        PruningPlan.load(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ({"a": 4, "b.1": 3}, "does not belong to this network: unknown group 'b.1': did you mean 'b.0'?"),
        ({"a": 5, "b.0": 3}, "'a' has 4 channels, it says 5"),
        ({"a": 4}, "it says nothing about 'b.0'"),
    ],
)
def test_another_architecture(channels: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        check_same_groups(channels, GRAPH, "it")
    with pytest.raises(UserError, match="the plan does not belong to this network"):
        PruningPlan(dict.fromkeys(channels, (0,)), channels).mask(GRAPH)


def test_top_mask() -> None:
    scores = np.array([1.0, 3.0, 2.0, 3.0, -1.0, -2.0, -3.0])
    assert np.flatnonzero(top_mask(GRAPH, np.array([2, 1]), scores)).tolist() == [1, 3, 4]
    # Of equals, the first stay.
    assert np.flatnonzero(top_mask(GRAPH, np.array([3, 2]), np.zeros(7))).tolist() == [0, 1, 2, 4, 5]
    many = Graph((Group("a", 100, 0, ("a",), ()),), (), (), (), {}, {})
    assert np.flatnonzero(~top_mask(many, np.array([75]), np.arange(100) % 2)).tolist() == list(range(50, 100, 2))
    assert top_mask(GRAPH, np.array([4, 3]), scores).all()


def test_ratio_table() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 2, bias=False),
    )  # fmt: skip
    graph = build_graph(net, torch.zeros(1, 3, 2, 2))
    mask, scores = np.isin(np.arange(12), [1, 2, 8, 10, 11]), np.array([1, 3, 3, 1, 0, 0, 0, 0, 0.0, 1, 2, 1])
    plan = make_plan(graph, mask, scores=scores, rises=np.array([0.25, 1 / 3]))
    table = ratio_table(graph, build_cost(graph), plan)
    macs, params = 4 * (24 + 32) + 8, 24 + 16 + 32 + 8
    assert table.to_dict("list") == {
        "group": ["0", "2"],
        "tied": [0, 0],
        "channels": [8, 4],
        "kept": [2, 3],
        "keep_ratio": [0.25, 0.75],
        "importance_kept": [6 / 8, 3 / 4],
        "sensitivity": [0.25, 0.333333],
        "macs_saved_alone": [round(6 * 4 * (3 + 4) / macs, 6), round((4 * 8 + 2) / macs, 6)],
        "params_saved_alone": [round(6 * (3 + 2 + 4) / params, 6), round((8 + 2) / params, 6)],
        # At 4 positions; the norm is the first group's, and the classifier nobody's.
        "macs_before": [4 * 8 * 3, 4 * 4 * 8],
        "macs_after": [4 * 2 * 3, 4 * 3 * 2],
        "params_before": [8 * 3 + 2 * 8, 4 * 8],
        "params_after": [2 * 3 + 2 * 2, 3 * 2],
        "layers": ["0", "2"],
    }


def test_a_plan_after_a_plan() -> None:
    first = PruningPlan({"a": (1, 4, 6), "b": (0, 2)}, {"a": 8, "b": 3}, {"model": "x"}, {"budget": "0.5", "seed": 1})
    second = PruningPlan({"a": (0, 2)}, {"a": 3}, {}, {"budget": "0.3"})
    both = first.then(second)
    assert both.kept == {"a": (1, 6), "b": (0, 2)}
    assert (both.channels, both.network) == (first.channels, first.network)
    assert both.provenance == {"budget": "0.3", "seed": 1}
    with pytest.raises(UserError, match="'a' has 3 channels there, the second plan says 8"):
        first.then(first)
    with pytest.raises(UserError, match="unknown group 'c'"):
        first.then(PruningPlan({"c": (0,)}, {"c": 1}))


def test_a_plan_that_says_which_criterion_every_group_has(tmp_path: Path) -> None:
    plan = replace(PLAN, criteria={"a": "l1", "b.0": "taylor:order=2"})
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    assert [group["criterion"] for group in json.loads((tmp_path / "plan.json").read_text())["groups"].values()] == [
        "l1", "taylor:order=2",
    ]  # fmt: skip
    assert plan.table()["criterion"].tolist() == ["l1", "taylor:order=2"]
    assert "criterion" not in PLAN.table()
    assert '"criterion"' not in saved(tmp_path).read_text()
    groups = json.loads((tmp_path / "plan.json").read_text())["groups"]
    groups["a"]["criterion"] = 3
    with pytest.raises(UserError, match="not a complete plan"):
        PruningPlan.load(saved(tmp_path, groups=groups))
