"""What another network borrows from the one a policy was trained on, and how far from it that is."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from residual import EXAMPLE, basic, network
from torch import nn

from rlprune.agents import transfer as module
from rlprune.agents.transfer import HAIR, NEIGHBOURS, SourceNetwork, family, nearest_source
from rlprune.cost.exact import Cost, build_cost
from rlprune.envs.observation import DYNAMIC, Features, build_features, layer_facts
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.graph.structure import Graph
from rlprune.tracing.build import build_graph

RATIOS = np.array([1, 0.5, 0.1])


def chain(*widths: int) -> tuple[Graph, Cost]:
    """3x3 convolutions of these widths, one after the other."""
    sizes = [3, *widths]
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes, widths, strict=False)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 2))
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    return graph, build_cost(graph)


def features_of(graph: Graph, cost: Cost, curves: Sensitivity, seed: int = 0) -> Features:
    scores = np.random.default_rng(seed).random(int(graph.sizes.sum())) + 0.1
    return build_features(graph, cost, scores, (scores, scores), curves, graph.sizes / 2)


def home_of(graph: Graph, cost: Cost, rises: np.ndarray) -> SourceNetwork:
    curves = Sensitivity(RATIOS, np.column_stack([np.zeros(len(rises)), rises]))
    features = features_of(graph, cost, curves)
    channels = {group.name: group.channels for group in graph.groups}
    inputs = {"dense weights": "here", "images": "these"}
    network = {"model": "vgg16", "args": {}}
    seen = features.names[:-DYNAMIC], features.static
    return SourceNetwork(network, "digits", inputs, channels, *seen, curves, "rule")


RISES = np.array([[0.3, 1.0], [0.2, 0.7], [0.1, 0.4], [0.05, 0.2]])


@pytest.fixture
def source() -> SourceNetwork:
    return home_of(*chain(8, 16, 32, 32), RISES)


def test_the_same_groups_keep_their_curves(source: SourceNetwork) -> None:
    graph, cost = chain(8, 16, 32, 32)
    assert source.is_same_architecture(graph)
    np.testing.assert_array_equal(source.borrow(graph, cost).rises[:, 1:], RISES)
    assert not source.is_same_architecture(chain(8, 16, 32, 31)[0])
    assert not source.is_same_architecture(chain(8, 16, 32)[0])


def residual(blocks: int) -> tuple[Graph, Cost]:
    graph = build_graph(network(*(basic() for _ in range(blocks))), EXAMPLE)
    return graph, build_cost(graph)


def test_what_blocks_cost_is_kept_and_borrowed() -> None:
    """By depth: the three inner groups here are at 1/4, 2/4 and 3/4, those of one with four blocks at 1/5 to 4/5."""
    graph, cost = residual(3)
    plain = home_of(graph, cost, RISES)
    measured = tuple(zip([block.groups for block in graph.blocks], (0.1, 0.2, 0.4), strict=True))
    source = replace(plain, sensitivity=replace(plain.sensitivity, blocks=measured))
    again = SourceNetwork.from_json(source.as_json(), source.names)
    assert again.sensitivity.blocks == measured
    assert again.borrow(graph, cost).blocks == measured
    assert "blocks" not in plain.as_json()
    assert SourceNetwork.from_json(plain.as_json(), plain.names).sensitivity.blocks == ()
    larger = residual(4)
    found = source.borrow(*larger).blocks
    assert [groups for groups, _ in found] == [block.groups for block in larger[0].blocks]
    assert [rise for _, rise in found] == pytest.approx([0.1, 0.16, 0.28, 0.4])
    assert plain.borrow(*larger).blocks == ()


@pytest.mark.parametrize(("groups", "rise"), [([9], 1.0), ([], 1.0), ([1], np.nan)])
def test_blocks_that_cannot_be(source: SourceNetwork, groups: list[int], rise: float) -> None:
    with pytest.raises(ValueError, match="blocks that do not belong"):
        SourceNetwork.from_json(source.as_json() | {"blocks": [{"groups": groups, "rise": rise}]}, source.names)


def test_others_borrow_from_the_nearest(source: SourceNetwork) -> None:
    """Recomputed group by group from the definition: weights fall with the square of the distance."""
    here_graph, here_cost = chain(8, 16, 16, 32, 32)
    facts = [layer_facts(*network) for network in (chain(8, 16, 32, 32), (here_graph, here_cost))]
    for some in facts:
        for share in ("macs_share", "params_share"):
            some[share] = some[share] / some[share].mean()
    there, here = (np.array(list(some.values())).T for some in facts)
    scale = [max(column.std(), 0.1) for column in there.T]
    found = source.borrow(here_graph, here_cost)
    assert found.ratios.tolist() == 5 * [RATIOS.tolist()]
    for group, mine in enumerate(here):
        apart = [float(np.sqrt(np.mean(((mine - other) / scale) ** 2))) for other in there]
        near = sorted(range(4), key=lambda other: apart[other])[:NEIGHBOURS]
        weights = np.array([1 / (apart[other] ** 2 + HAIR) for other in near])
        expected = (weights[:, None] * RISES[near]).sum(0) / weights.sum()
        np.testing.assert_allclose(found.rises[group, 1:], expected, rtol=1e-12)
        assert found.rises[group, 0] == 0
    # All groups differ in width only a little or in depth a little: the first stays the most sensitive.
    assert found.rises[:, 2].argmax() == 0


def test_curves_of_other_ratios_are_read_where_the_nearest_was_measured() -> None:
    """The first group's nearest is the first; the second, measured elsewhere, takes part by 0.2 at most, its lowest."""
    ratios = np.array([[1, 0.5, 0.25], [1, 0.75, 0.5], [1, 0.5, 0.25], [1, 1, 1]])
    source = home_of(*chain(8, 16, 32, 32), np.zeros((4, 2)))
    rises = np.array([[0, 1, 1.5], [0, 0.1, 0.2], [0, 1, 1.5], [0, 0, 0]])
    source = replace(source, sensitivity=Sensitivity(ratios, rises))
    found = source.borrow(*chain(8, 16, 32))
    # Nobody takes over that the last group could not be cut.
    assert (found.lowest < 1).all()
    assert found.ratios[0].tolist() == [1, 0.5, 0.25]
    # At 0.5 and 0.25 the steep curves say 1 and 1.5, the shallow one 0.2 and no more: their shares are the same.
    shares = (found.rises[0, 1] - 0.2) / 0.8, (found.rises[0, 2] - 0.2) / 1.3
    assert shares[0] == pytest.approx(shares[1])
    assert 0 < shares[0] < 1


def test_the_distance(source: SourceNetwork) -> None:
    graph, cost = chain(8, 16, 32, 32)
    assert source.distance(features_of(graph, cost, source.sensitivity)) == 0
    # What is measured counts nothing, what is seen of the weights does.
    tame = Sensitivity(RATIOS, np.zeros((4, 3)))
    assert source.distance(features_of(graph, cost, tame)) == 0
    weights = source.distance(features_of(graph, cost, tame, seed=1))
    assert 0 < weights < 2
    wider = chain(80, 160, 320, 320)
    assert source.distance(features_of(*wider, tame)) > 0


def test_what_is_familiar_is_half_way(source: SourceNetwork) -> None:
    graph, cost = chain(8, 16, 32, 32)
    tame = Sensitivity(RATIOS, np.zeros((4, 3)))
    there = features_of(graph, cost, tame, seed=1)
    found = source.familiar(there)
    follows = np.array(["rise_at" in name or "base_ratio" in name for name in source.names])
    np.testing.assert_allclose(found.static[:, ~follows], (there.static + source.facts)[:, ~follows] / 2)
    # The curves and the base plan are those that are walked.
    np.testing.assert_array_equal(found.static[:, follows], there.static[:, follows])
    assert found.names == there.names


def test_a_source_that_saw_fewer_features_is_met_by_name(source: SourceNetwork) -> None:
    graph, cost = chain(8, 16, 32, 32)
    there = features_of(graph, cost, source.sensitivity, seed=1)
    kept = [place for place, name in enumerate(source.names) if not name.startswith(("before_", "after_", "depth"))]
    old = replace(source, names=tuple(source.names[place] for place in kept), facts=source.facts[:, kept])
    found = old.familiar(there)
    place = there.names.index("static_q5")
    np.testing.assert_allclose(found.static[:, place], (there.static + source.facts)[:, place] / 2)
    new = [place for place, name in enumerate(source.names) if name.startswith(("before_", "after_", "depth"))]
    np.testing.assert_array_equal(found.static[:, new], there.static[:, new])
    assert old.distance(there) > 0


def test_the_nearest_home(source: SourceNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the same weights, then the same architecture, then similar layers."""
    monkeypatch.setattr(module, "inputs_of", lambda _: {"dense weights": "here", "images": "these"})
    elsewhere = replace(source, inputs={"dense weights": "other", "images": "these"})
    thin, wide = (home_of(*chain(*widths), RISES) for widths in ((8, 8, 8, 8), (64, 128, 256, 256)))

    def nearest(sources: list[SourceNetwork], *widths: int) -> SourceNetwork:
        graph, cost = chain(*widths)
        workload: Any = SimpleNamespace(graph=graph, cost=cost)
        return nearest_source(sources, workload)

    assert nearest([thin, elsewhere, source, wide], 8, 16, 32, 32) is source
    assert nearest([thin, elsewhere, wide], 8, 16, 32, 32) is elsewhere
    assert nearest([wide, thin], 8, 8, 8) is thin
    assert nearest([thin, wide], 64, 128, 256) is wide


@pytest.mark.parametrize(
    ("widths", "model", "data", "inputs", "expected"),
    [
        ((8, 16, 32, 32), "vgg16", "digits", ("here", "these"), "the very network it was trained on"),
        ((8, 16, 32, 32), "vgg16", "digits", ("here", "others"), "the same network, with other images held out"),
        ((8, 16, 32, 32), "vgg16", "digits", ("other", "these"), "the same architecture with other weights"),
        ((8, 16, 32, 32), "vgg16", "folder:moved", ("other", "these"), "the same architecture with other weights"),
        ((8, 16, 32, 32), "vgg16", "cifar10", ("other", "others"), "the same architecture, on another data set"),
        ((8, 16, 32), "torchvision/vgg11_bn", "digits", ("other", "these"), "another depth or width of vgg"),
        ((8, 16, 32), "vgg11", "cifar10", ("a", "b"), "another depth or width of vgg, on another data set"),
        ((8, 16, 32), "resnet20", "digits", ("other", "others"), "another family than vgg"),
    ],
)
def test_the_kind_of_journey(
    source: SourceNetwork,
    monkeypatch: pytest.MonkeyPatch,
    widths: tuple[int, ...],
    model: str,
    data: str,
    inputs: tuple[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr(module, "inputs_of", lambda _: dict(zip(("dense weights", "images"), inputs, strict=True)))
    workload: Any = SimpleNamespace(
        graph=chain(*widths)[0], network={"model": model}, data=SimpleNamespace(name=data)
    )  # fmt: skip
    assert source.kind(workload) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("vgg16", "vgg"),
        ("resnet20", "resnet"),
        ("torchvision/resnet18", "resnet"),
        ("timm/resnetv2_50", "resnet"),
        ("mobilenetv2", "mobilenet"),
        ("torchvision/mobilenet_v3_small", "mobilenet"),
        ("torchvision/densenet121", "densenet"),
        ("timm/convnext_tiny", "convnext"),
        ("my/net2.py:make", "my/net2.py:make"),
        ("3d", "3d"),
    ],
)
def test_families(model: str, expected: str) -> None:
    assert family(model) == expected


def test_it_comes_back_from_a_file(source: SourceNetwork) -> None:
    again = SourceNetwork.from_json(source.as_json(), source.names)
    assert again.channels == source.channels
    np.testing.assert_array_equal(again.facts, source.facts)
    assert again.base == "rule"
    np.testing.assert_array_equal(again.sensitivity.ratios, source.sensitivity.ratios)
    # Older files have ratios that are the same for all groups.
    older = source.as_json() | {"ratios": [1, 0.5, 0.2]}
    for group in older["groups"]:
        del group["ratios"]
    assert SourceNetwork.from_json(older, source.names).sensitivity.ratios.tolist() == 4 * [[1, 0.5, 0.2]]
    for spoil in (
        lambda data: data["groups"][0].pop("rises"),
        lambda data: data["groups"][0]["rises"].pop(),
        lambda data: data["groups"][0].update(facts=[0.0]),
        lambda data: data["groups"][0].update(rises=[0, float("nan"), 1]),
        lambda data: data["groups"][0].pop("ratios"),
        lambda data: data["groups"][0]["ratios"].pop(),
        lambda data: data["groups"][0].update(ratios=[1, 0.5, float("nan")]),
        lambda data: data.update(groups=[]),
        lambda data: data.pop("base"),
        lambda data: data.update(base="none"),
        lambda data: data.update(base=[]),
    ):
        data = source.as_json()
        spoil(data)
        with pytest.raises((KeyError, TypeError, ValueError)):
            SourceNetwork.from_json(data, source.names)


@pytest.mark.parametrize(("even", "expected"), [(False, "rule"), (True, "uniform")])
def test_one_of_an_earlier_format_tells_only_whether_plans_were_uniform(
    source: SourceNetwork, even: bool, expected: str
) -> None:
    data = source.as_json()
    del data["base"]
    assert SourceNetwork.from_json({**data, "even": even}, source.names).base == expected
