"""Ratios as other tools take them: read back, and pruned by the tool itself where it can be had."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
import torch_pruning
from torch import nn

from rlprune.cost.exact import build_cost
from rlprune.errors import UserError
from rlprune.exports.ratios import export_table
from rlprune.plans.plan import make_plan
from rlprune.plans.ratio_table import ratio_table
from rlprune.tracing.build import build_graph

EVIL = "<script>alert('x')</script>"
TABLE = pd.DataFrame(
    {
        "group": ["0.10", "layer1", "head"],
        "channels": [16, 32, 3],
        "kept": [12, 8, 1],
        "keep_ratio": [0.75, 0.25, 0.333333],
        "layers": ["0.10", "layer1 layer1.skip layer2", "head"],
    }
)


class Cells(HTMLParser):
    """The cells of a table, row by row, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data.strip()


def test_a_page_holds_all_of_the_table() -> None:
    long = " ".join(f"layer{number}.conv" for number in range(40))
    table = pd.concat([TABLE] * 40 + [pd.DataFrame([[EVIL, 4, 1, 0.25, long]], columns=TABLE.columns)])
    text = str(export_table(table, "html"))
    page = Cells(text)
    assert page.rows[0] == list(TABLE.columns)
    assert [row[:3] for row in page.rows[1:4]] == [["0.10", "16", "12"], ["layer1", "32", "8"], ["head", "3", "1"]]
    assert (len(page.rows), page.rows[-1][0], page.rows[-1][4]) == (122, EVIL, long)
    assert "script" not in page.tags
    assert not any(word in text for word in ("http", "src=", "@import"))


def test_nni() -> None:
    assert json.loads(export_table(TABLE, "nni")) == [
        {"op_names": ["0.10"], "sparse_ratio": 0.25, "granularity": "out_channel"},
        {
            "op_names": ["layer1", "layer1.skip", "layer2"],
            "sparse_ratio": 0.75,
            "granularity": "out_channel",
            "dependency_group_id": "layer1",
        },
        {"op_names": ["head"], "sparse_ratio": 0.666667, "granularity": "out_channel"},
    ]


def test_amc() -> None:
    text = export_table(TABLE, "amc")
    assert text == "0.75,0.25,0.333333\n"


def test_torch_pruning() -> None:
    ratios = json.loads(export_table(TABLE, "torch-pruning"))
    assert ratios == pytest.approx({"0.10": 0.25, "layer1": 0.75, "layer1.skip": 0.75, "layer2": 0.75, "head": 2 / 3})
    assert list(ratios) == ["0.10", "layer1", "layer1.skip", "layer2", "head"]


def test_a_layer_in_two_groups_loses_what_both_lose() -> None:
    table = pd.DataFrame({"group": ["a", "a#1"], "channels": [8, 4], "kept": [4, 2], "layers": ["a", "a"]})
    assert json.loads(export_table(table, "torch-pruning")) == {"a": 0.5}
    assert json.loads(export_table(table.assign(kept=[8, 1]), "torch-pruning")) == {"a": 0.25}


@pytest.mark.parametrize("channels", [3, 7, 29, 100, 4096])
def test_what_torch_pruning_rounds_down_are_the_kept_counts(channels: int) -> None:
    counts = np.arange(1, channels + 1)
    names = [str(count) for count in counts]
    table = pd.DataFrame({"group": names, "channels": channels, "kept": counts, "layers": names})
    ratios = json.loads(export_table(table, "torch-pruning"))
    assert [int(channels * (1 - ratios[name])) for name in names] == counts.tolist()


class Residual(nn.Module):
    """Convolutions that are tied by a sum, one inside, and a depthwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 29, 3, padding=1)
        self.inner = nn.Conv2d(29, 100, 3, padding=1)
        self.deep = nn.Conv2d(100, 100, 3, padding=1, groups=100)
        self.outer = nn.Conv2d(100, 29, 3, padding=1)
        self.head = nn.Linear(29, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.stem(images).relu()
        return self.head((images + self.outer(self.deep(self.inner(images)).relu())).mean((2, 3)))


@pytest.mark.parametrize("counts", [(29, 29), (7, 71), (1, 100), (14, 1)])
def test_torch_pruning_prunes_to_the_same_counts(counts: tuple[int, int]) -> None:
    network, images = Residual(), torch.zeros(1, 3, 8, 8)
    graph = build_graph(network, images)
    mask = np.concatenate([np.arange(29) < counts[0], np.arange(100) < counts[1]])
    table = ratio_table(graph, build_cost(graph), make_plan(graph, mask))
    assert table["layers"].tolist() == ["stem outer", "inner deep"]
    names = json.loads(export_table(table, "torch-pruning"))
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        images,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.0,
        pruning_ratio_dict={network.get_submodule(name): ratio for name, ratio in names.items()},
        ignored_layers=[network.head],
    )
    pruner.step()
    assert [layer.out_channels for layer in (network.stem, network.outer, network.inner, network.deep)] == [
        counts[0], counts[0], counts[1], counts[1]
    ]  # fmt: skip


@pytest.mark.parametrize("format", ["torch-pruning", "nni"])
def test_a_table_without_layers_says_how_to_get_them(format: str) -> None:
    with pytest.raises(UserError, match="older than the list of each group's layers: make it anew with `rlprune prune"):
        export_table(TABLE.drop(columns="layers"), format)
    assert export_table(TABLE.drop(columns="layers"), "amc") == "0.75,0.25,0.333333\n"
