"""Names of networks and their arguments: what they build and what is said of the ones that are wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.models.registry import OWN, build_model, model_names


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(name: str, image_size: int = 32, classes: int = 10, **args: Any) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, classes=classes, image_size=image_size, args=args)


@pytest.mark.parametrize("name", model_names())
def test_own_networks_classify_small_images(name: str) -> None:
    model = build_model(name, classes=3, image_size=32, args={"width": 0.1})
    assert model.training
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vgg16", {"width": 64}),
        ("torchvision/resnet50", {"width_per_group": 10**7}),
        ("torchvision/resnet50", {"width_per_group": 10**12}),
    ],
)
def test_what_no_network_is_as_large_as_gets_no_memory(
    name: str, args: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = torch.empty

    def watched(*sizes: Any, **options: Any) -> torch.Tensor:
        made = empty(*sizes, **options)
        assert made.is_meta or made.nbytes < 1 << 20
        return made

    monkeypatch.setattr(torch, "empty", watched)
    with pytest.raises(UserError, match=rf"{name} has more than 1,000,000,000 parameters with {next(iter(args))}="):
        build_model(name, classes=3, image_size=32, args=args)


@pytest.mark.parametrize("width", [10**10, 10**18])
def test_a_file_that_makes_too_large_a_network(tmp_path: Path, width: int) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(width):\n    return nn.Conv2d(3, width, 3)\n")
    with pytest.raises(UserError, match=rf"net.py:make has more than 1,000,000,000 parameters with width={width}"):
        build_model(f"{tmp_path / 'net.py'}:make", classes=3, image_size=32, args={"width": width})


def test_a_rehearsal_changes_no_weights() -> None:
    """It draws nothing at random, and nothing is left of it."""
    torch.manual_seed(3)
    direct = OWN["resnet20"](classes=3, width=0.25).state_dict()
    torch.manual_seed(3)
    built = build_model("resnet20", classes=3, image_size=32, args={"width": 0.25}).state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in direct.items())


def test_a_rehearsal_loads_no_compiler() -> None:
    """It would take longer than all else that a replay does."""
    code = (
        "import sys; from rlprune.models.registry import build_model\n"
        "for name in ('vgg16', 'resnet20', 'mobilenetv2', 'mcifarnet'):\n"
        "    build_model(name, classes=3, image_size=32, args={'width': 0.25})\n"
        "print('torch._dynamo' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "published"),
    # torchvision's documentation, for 1000 classes
    [("vgg11", 132_868_840), ("vgg16", 138_365_992), ("mobilenetv2", 3_504_872)],
)
def test_large_images_mean_the_imagenet_form(name: str, published: int) -> None:
    assert size(build(name, image_size=65, classes=1000)) == published


def test_resnet_is_the_same_at_every_size() -> None:
    assert size(build("resnet20", image_size=224)) == size(build("resnet20", image_size=32)) == 272_474


def test_width_of_a_large_mobilenet_is_torchvisions() -> None:
    narrow = build("mobilenetv2", image_size=224, classes=1000, width=0.5)
    assert narrow.get_parameter("features.0.0.weight").shape == (16, 3, 3, 3)


def test_weights_come_from_the_global_generator() -> None:
    def first() -> torch.Tensor:
        return build_model("resnet20", classes=10, image_size=32, args={"width": 0.25}).get_parameter("conv1.weight")

    torch.manual_seed(3)
    one, other = first(), first()
    torch.manual_seed(3)
    assert torch.equal(first(), one)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "published"),
    # torchvision's documentation for 1000 classes; the first two without their auxiliary classifiers
    [("googlenet", 6_624_904), ("inception_v3", 23_834_568), ("resnet18", 11_689_512)],
)
def test_torchvision_builds_without_a_warning(name: str, published: int) -> None:
    assert size(build(f"torchvision/{name}", classes=1000)) == published


def test_torchvision_takes_its_own_arguments() -> None:
    assert size(build("torchvision/mobilenet_v2", width_mult=0.5)) < size(build("torchvision/mobilenet_v2"))


def test_timm_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'rlprune\[timm\]'"):
        build("timm/resnet18")


def test_timm() -> None:
    pytest.importorskip("timm")
    assert size(build("timm/resnet18", classes=1000)) == 11_689_512
    with pytest.raises(UserError, match="did you mean resnet18"):
        build("timm/resnet1888")
    with pytest.raises(UserError, match="widht=2"):
        build("timm/resnet18", widht=2)


@pytest.mark.parametrize(
    ("name", "image_size", "args", "message"),
    [
        ("vgg61", 32, {}, "unknown model 'vgg61': did you mean 'vgg1.'.*torchvision/NAME"),
        ("vgg16", 32, {"widht": 0.25}, "argument of vgg16 'widht': did you mean 'width'"),
        ("vgg16", 32, {"width": 0}, "above 0.*got 0"),
        ("resnet20", 32, {"width": -1.0}, "above 0.*got -1.0"),
        ("resnet20", 32, {"width": float("nan")}, "above 0.*got nan"),
        ("resnet20", 32, {"width": float("inf")}, "above 0.*got inf"),
        ("resnet20", 32, {"width": "wide"}, "above 0.*got 'wide'"),
        ("resnet20", 32, {"width": True}, "above 0.*got True"),
        ("vgg16", 28, {}, "32 pixels or more; got 28"),
        ("vgg16", 224, {"width": 0.5}, "up to 64 pixels only"),
        ("torchvision/resnett18", 32, {}, "did you mean 'resnet18'"),
        ("torchvision/fasterrcnn_resnet50_fpn", 32, {}, "unknown torchvision classification model"),
        ("torchvision/resnet18", 32, {"depth": 3}, "depth=3.*unexpected keyword argument 'depth'"),
        ("torchvision/resnet18", 32, {"weights": "NONE"}, "weights=NONE"),
        ("net.py", 32, {}, "names no factory"),
        ("nowhere/net.py:make", 32, {}, "there is no file nowhere/net.py in"),
    ],
)
def test_mistakes_are_explained(name: str, image_size: int, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name, image_size=image_size, **args)


FILE = """
from torch import nn
from neighbour import CHANNELS

def make(num_classes, depth=1):
    return nn.Sequential(*[nn.Conv2d(3, CHANNELS, 1) for _ in range(depth)], nn.Linear(CHANNELS, num_classes))

class Net(nn.Linear):
    def __init__(self, **kwargs):
        super().__init__(4, kwargs["num_classes"])

def fixed():
    return nn.Linear(4, 2)

def number():
    return 3

def broken():
    return len(5)

constant = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "neighbour.py").write_text("CHANNELS = 5")
    path = tmp_path / "nets.py"
    path.write_text(FILE)
    return str(path)


def test_factories_get_the_classes_if_they_take_them(file: str) -> None:
    assert build(f"{file}:make").get_submodule("1").out_features == 10
    assert build(f"{file}:make", num_classes=4).get_submodule("1").out_features == 4
    assert len(list(build(f"{file}:make", depth=3).children())) == 4
    assert build(f"{file}:Net").out_features == 10
    assert build(f"{file}:fixed").out_features == 2


def test_importing_a_file_leaves_the_search_path_alone(file: str) -> None:
    before = list(sys.path)
    build(f"{file}:make")
    assert sys.path == before


@pytest.mark.parametrize(
    ("factory", "args", "message"),
    [
        ("mkae", {}, "did you mean 'make'"),
        ("constant", {}, "unknown factory in .*known: .*make"),
        ("", {}, "names no factory"),
        ("number", {}, "returned a int: it must return a torch.nn.Module"),
        ("make", {"dpth": 2}, r"make\(num_classes, depth=1\) cannot be called with .*dpth=2.*'dpth'"),
    ],
)
def test_mistakes_with_a_file_are_explained(file: str, factory: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(f"{file}:{factory}", **args)


def test_errors_of_the_users_own_code_pass_through(file: str) -> None:
    with pytest.raises(TypeError, match="has no len"):
        build(f"{file}:broken")


def test_a_factory_is_told_of_images_that_its_defaults_are_not_for(tmp_path: Path) -> None:
    """A plan from before factories were told of images builds the network that it was made for."""
    text = (
        "from torch import nn\n\n\n"
        "def make(num_classes, in_channels=3, image_size=224):\n"
        "    net = nn.Linear(in_channels, num_classes)\n"
        "    net.told = (in_channels, image_size)\n"
        "    return net\n\n\n"
        "def bare(num_classes, in_channels, image_size):\n"
        "    return make(num_classes, in_channels, image_size)\n"
    )
    (tmp_path / "net.py").write_text(text)

    def told(factory: str, image_size: int | str, channels: int = 3) -> object:
        model = build_model(f"{tmp_path}/net.py:{factory}", classes=2, image_size=image_size, channels=channels)
        return model.told

    assert told("make", 32) == (3, 224)
    assert told("make", "12x20") == (3, (12, 20))
    assert told("make", 32, channels=1) == (1, 224)
    assert told("bare", 32) == (3, 32)


WRAPPED = """
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 2, 3)))


def parallel():
    return nn.DataParallel(net())


def averaged():
    return AveragedModel(nn.DataParallel(net()))


def compiled():
    return torch.compile(net())


def inside():
    whole = net()
    whole[1] = torch.compile(whole[1])
    whole[0].compile()
    return whole


def scripted():
    return torch.jit.trace(net(), torch.zeros(1, 3, 8, 8))
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("factory", "told"),
    [("parallel", "DataParallel"), ("averaged", "AveragedModel"), ("compiled", "OptimizedModule"), ("inside", "")],
)
def test_the_network_inside_of_what_a_factory_returns_is_taken(tmp_path: Path, factory: str, told: str) -> None:
    (tmp_path / "net.py").write_text(WRAPPED)
    notes: list[str] = []
    name = f"{tmp_path / 'net.py'}:{factory}"
    found = build_model(name, classes=2, image_size=8, tell=notes.append)
    assert list(found.state_dict()) == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert all(part._compiled_call_impl is None for part in found.modules())
    assert notes == [f"{name} returned a {told}: the Sequential inside of it is taken"] * bool(told)


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(WRAPPED)
    with pytest.raises(UserError, match="returned a scripted module, whose layers cannot be followed"):
        build_model(f"{tmp_path / 'net.py'}:scripted", classes=2, image_size=8)


def test_lazy_layers_of_a_file_get_their_sizes(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    module = build_model(f"{file}:net", classes=5, image_size="8x6")
    assert module[2].weight.shape == (5, 4 * 6 * 4)  # type: ignore[index]
