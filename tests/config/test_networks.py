"""How the settings of a search over several networks are shared out."""

from pathlib import Path
from typing import Any

import pytest

from rlprune.config.commands import Search
from rlprune.config.networks import each_network, folder_names, settings_for
from rlprune.config.resolve import as_dict
from rlprune.errors import UserError


def search(**more: Any) -> Search:
    return Search(**{"model": "resnet20, vgg16", "budget": 0.3} | more)


def test_one_network_keeps_its_settings() -> None:
    alone = search(model="vgg16", model_args="width=0.25", checkpoint=Path("a,b.pt"))
    assert each_network(alone) == [alone]


def test_every_network_gets_its_own() -> None:
    first, second = each_network(search(checkpoint=Path("a.pt, b.pt"), model_args="width=0.5;width=0.25", seed=3))
    assert (first.model, first.checkpoint, first.model_args) == ("resnet20", Path("a.pt"), "width=0.5")
    assert (second.model, second.checkpoint, second.model_args) == ("vgg16", Path("b.pt"), "width=0.25")
    assert (first.seed, second.budget) == (3, 0.3)


def test_arguments_are_shared() -> None:
    assert [one.model_args for one in each_network(search(model_args="width=0.5"))] == ["width=0.5"] * 2
    assert [(one.model_args, one.checkpoint) for one in each_network(search())] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": "vgg16,"}, "has a comma with no name beside it"),
        ({"model": "vgg16,vgg16"}, "names vgg16 twice"),
        ({"checkpoint": Path("a.pt")}, "--checkpoint has 1 parts for 2 networks, resnet20, vgg16"),
        ({"model_args": "width=1;width=2;width=3"}, "--model-args has 3 parts for 2 networks"),
    ],
)
def test_mistakes(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        each_network(search(**more))


@pytest.mark.parametrize("more", [{"tunings": 8}, {"time": "1m"}])
def test_tunings_are_for_one_network(more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="are several networks: --tunings and --time work for a single one"):
        search(**more)


def test_folders_are_called_by_their_networks() -> None:
    models = "vgg16,torchvision/resnet18,vgg16,nets/my.py:make"
    networks = each_network(search(model=models, model_args="width=1;depth=3;width=0.5;x=1"))
    assert folder_names(networks) == ["vgg16", "resnet18", "vgg16-3", "my.py_make"]


def test_a_policy_knows_the_settings_of_each_network() -> None:
    settings = as_dict(search(model="vgg16,resnet20,vgg16", model_args="width=1;width=0.5;width=0.25"))
    assert settings_for(settings, "resnet20", None)["model_args"] == "width=0.5"
    assert settings_for(settings, "vgg16", None)["model_args"] == "width=1"
    assert settings_for(settings, "vgg16", "width=0.25")["model_args"] == "width=0.25"
    assert settings_for(settings, "vgg16", "width=2")["model_args"] == "width=1"
    assert settings_for(settings, "vgg11", None)["model"] == "vgg16"
    with pytest.raises(UserError, match="trained on vgg16, resnet20, say which network to walk"):
        settings_for(settings, None, None)
    assert settings_for(as_dict(search(model="vgg19")), None, None)["model"] == "vgg19"


def test_arguments_with_semicolons_in_quotes_are_shared_out() -> None:
    parts = each_network(search(model_args="act='a;b',layers=[8,16];width=2"))
    assert [one.model_args for one in parts] == ["act='a;b',layers=[8,16]", "width=2"]
