"""Hand rlprune what nobody should hand it, and look whether it works or says what is wrong, and nothing else happens.

    python scripts/checks/hostile.py        # about two minutes; writes its part of docs/reliability.md

Every function here is a line of the table; `tests/test_hostile.py` runs all of them, too.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from faults import Fault, table, watch_memory, write_part
from PIL import Image
from pyarrow.parquet import write_table
from safetensors.torch import load_file, save_file
from torch import Tensor

import rlprune.agents.search.rounds as agent
from rlprune.artifacts.pretrained import from_pretrained
from rlprune.artifacts.pruned import load
from rlprune.cli.main import main as rlprune
from rlprune.config.commands import COMMANDS
from rlprune.errors import UserError

NET = """
from torch import nn


def make(num_classes, normed=False):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        *([nn.BatchNorm1d(6)] if normed else []), nn.Linear(6, num_classes),
    )
"""
SIZE = 12
ABOUT = [
    "## What is handed over",
    "",
    "`python scripts/checks/hostile.py` hands all this to the commands named, fails where anything else happens, and",
    "writes this part. Exit code 2 means one sentence for people, no traceback, and that not a single file was made.",
]


class World(NamedTuple):
    """What is in order: a folder, images in it, how to build a network, its weights, and a finished run."""

    root: Path
    images: str
    network: list[str]
    weights: Path
    run: Path


def main() -> None:
    """Hand over everything, then write the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, small_searches():
        os.environ["XDG_DATA_HOME"] = str(Path(folder) / "data")
        world = make_world(Path(folder))
        part = table(ABOUT, [fault(world) for fault in FAULTS])
    print(part)
    write_part(part)


@contextlib.contextmanager
def small_searches() -> Iterator[None]:
    """Within, an agent learns hardly anything, and quickly."""
    before = agent.WALKS, agent.ROLLOUTS
    agent.WALKS, agent.ROLLOUTS = 32, 1
    try:
        yield
    finally:
        agent.WALKS, agent.ROLLOUTS = before


def make_world(root: Path) -> World:
    """Make all that is in order."""
    (root / "net.py").write_text(NET)
    world = World(
        root,
        write_images(root / "images"),
        ["--model", f"{root / 'net.py'}:make", "--device", "cpu"],
        root / "dense.safetensors",
        root / "run",
    )
    works("train", *world.network, "--data", world.images, "--epochs", 1, "--out", world.weights)
    works(*searching(world, out=world.run))
    return world


def write_images(folder: Path, train: int = 14, test: int = 4, colour: tuple[int, int, int] | None = None) -> str:
    """Images of three classes, each noise around a grey of its own, or all of one colour; returns what --data takes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for grey, name in enumerate("abc", 1):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                noise = np.clip(rng.normal(60 * grey, 50, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
                image = Image.fromarray(noise) if colour is None else Image.new("RGB", (SIZE, SIZE), colour)
                image.save(folder / part / name / f"{number}.png")
    return f"folder:{folder}"


def searching(world: World, weights: Path | None = None, images: str | None = None, *more: object, out: Path) -> list:
    """The words of a short search."""
    words = ["search", *world.network, "--data", images or world.images, "--checkpoint", weights or world.weights]
    return [*words, "--budget", 0.5, "--evaluations", 34, "--finetune-epochs", 0, *more, "--out", out]


def told(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command; what is no error for people is raised."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            rlprune([str(word) for word in words], prog_name="rlprune")
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("the command line ends every command")


def works(*words: object) -> dict:
    """What a command that has to work prints, in which every number is one."""
    code, out, err = told(*words, "--json")
    assert code == 0, f"{words} ended with {code}: {err}"
    result: dict = json.loads(out)
    unknown = [name for name, value in result.items() if value is None and name.endswith(("loss", "accuracy"))]
    assert set(unknown) <= {"finetuned_accuracy"}, f"{words} told no {unknown}"
    return result


def refuses(world: World, say: str, *words: object) -> None:
    """Whether a command ends in a sentence that says something, and makes nothing."""
    before = sorted(world.root.rglob("*"))
    code, out, err = told(*words)
    assert (code, out) == (2, ""), f"{words} ended with {code}: {err}"
    assert say in err.rpartition("rlprune: error: ")[2], f"{words} should say '{say}' and says: {err}"
    assert sorted(world.root.rglob("*")) == before, f"{words} left something behind"


def changed(world: World, path: Path, name: str, change: Callable[[Tensor], object], within: str = "") -> Path:
    """A file of weights with one tensor, or all those whose name holds something, changed in place."""
    state = load_file(path)
    for key in [name] if name else [key for key in state if within in key]:
        change(state[key])
    target = world.root / f"changed-{len(list(world.root.iterdir()))}.safetensors"
    save_file(state, target)
    return target


def sick_weights(world: World) -> Fault:
    """Numbers that are none."""
    sick = [
        ("3.weight", lambda tensor: tensor[0, 0].fill_(torch.nan)),
        ("0.weight", lambda tensor: tensor[0, 0].fill_(torch.inf)),
        ("4.running_var", lambda tensor: tensor.fill_(-1)),
    ]
    for name, change in sick:
        path, out = changed(world, world.weights, name, change), world.root / "never"
        compared = ["--budget", 0.5, "--methods", "uniform", "--seeds", 1, "--out", out]
        given = [*world.network, "--data", world.images, "--checkpoint", path]
        refuses(world, f"{path}: '{name}' holds", *searching(world, path, out=out))
        refuses(world, f"{path}: '{name}' holds", "compare", *given, *compared)
        refuses(world, f"{path}: '{name}' holds", "eval", *given)
        refuses(world, f"{path}: '{name}' holds", "prune", "--plan", world.run, "--checkpoint", path, "--out", out)
        refuses(world, f"{path}: '{name}' holds", "replay", world.run, "--checkpoint", path, "--out", out)
        pruned = world.run / "pruned" / "model.safetensors"
        whole = pruned.read_bytes()
        pruned.write_bytes(changed(world, pruned, name, change).read_bytes())
        for words in (["eval"], ["finetune", "--out", out], ["export", "--format", "python", "--out", out]):
            refuses(world, f"{pruned}: '{name}' holds", words[0], world.run, *words[1:])
        pruned.write_bytes(whole)
    commands = "`search`, `compare`, `eval`, `prune`, `replay`; in a pruned folder `eval`, `finetune`, `export`"
    how = f"a checkpoint or a pruned folder has one of them: {commands}"
    return Fault("NaN, infinity or a negative variance among weights", how, "exit code 2: the file and the tensor")


def overflow(world: World) -> Fault:
    """Finite weights that are too large to be computed with."""
    path = changed(world, world.weights, "3.weight", lambda tensor: tensor.fill_(3e38))
    for words in (searching(world, path, out=world.root / "never"), ["eval", *world.network, "--checkpoint", path]):
        words += [] if words[0] == "search" else ["--data", world.images]
        refuses(world, f"{path} computes NaN or infinite values", *words)
        refuses(world, "'3' is the first layer that does", *words)
    how = "a convolution's weights are all 3e38: `search`, `eval`"
    return Fault("weights that overflow", how, "exit code 2: the file and the first layer whose output is not finite")


def dead_layers(world: World) -> Fault:
    """Layers that tell nothing, and channels that are all alike."""
    dead = {
        "zero": changed(world, world.weights, "3.weight", lambda tensor: tensor.zero_()),
        "alike": changed(world, world.weights, "3.weight", lambda tensor: tensor.fill_(0.1)),
        "variance": changed(world, world.weights, "", lambda tensor: tensor.zero_(), "running_var"),
        "all": changed(world, world.weights, "", lambda tensor: tensor.zero_()),
    }
    for name, path in dead.items():
        folder = world.root / f"dead-{name}"
        works(*searching(world, path, out=folder / "run"))
        works("eval", folder / "run")
        works("replay", folder / "run", "--budget", 0.6, "--evaluations", 2, "--out", folder / "replay")
        for criterion in ("l2", "taylor"):
            plan = ["--plan", world.run, "--checkpoint", path, "--criterion", criterion, "--budget", 0.4]
            works("prune", *plan, "--out", folder / criterion)
        compared = ["--methods", "global-l1,sensitivity,ppo", "--seeds", 1, "--evaluations", 34, "--budget", 0.5]
        given = [*world.network, "--data", world.images, "--checkpoint", path]
        works("compare", *given, *compared, "--out", folder / "compare")
    how = (
        "a layer's weights are zero, or all its filters alike, or all variances zero, or all weights: `search`, "
        "`eval`, `replay`, `prune` by other criteria, `compare`"
    )
    return Fault("dead layers, equal scores", how, "all work, and every loss is a number")


def one_colour(world: World) -> Fault:
    """Images without anything to see."""
    images, out = write_images(world.root / "red", colour=(200, 10, 10)), world.root / "never"
    given = [*world.network, "--data", images]
    refuses(world, "give the mean and std to use", "train", *given, "--epochs", 1, "--out", out / "a.safetensors")
    colours = ["--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]
    works("train", *given, *colours, "--epochs", 1, "--out", world.root / "red.safetensors")
    works(*searching(world, None, images, *colours, "--finetune-epochs", 1, out=world.root / "red-run"))
    works("eval", world.root / "red-run")
    how = "all pixels of all images are the same: `train`, `search`, `eval`"
    return Fault("images of one colour", how, "exit code 2 until `--mean` and `--std` are given; with them all work")


def small_splits(world: World) -> Fault:
    """Splits with a single image, in which classes are absent."""
    single = ["--search-images", 1, "--calibration-images", 1]
    few = {"two": write_images(world.root / "two", train=2, test=1), "one": write_images(world.root / "one", 1, 1)}
    for name, images, more in (("split", None, single), ("two", few["two"], []), ("one", few["one"], single)):
        folder, given = world.root / f"few-{name}", [*world.network, "--data", images or world.images, *more]
        works("train", *given, "--epochs", 1, "--out", folder / "dense.safetensors")
        works(*searching(world, None, images, *more, "--finetune-epochs", 1, out=folder / "run"))
        works("eval", folder / "run")
        works("replay", folder / "run", "--budget", 0.6, "--evaluations", 2, "--out", folder / "replay")
    counts = "one search and one calibration image; two images a class; one image a class"
    how = f"{counts}: `train`, `search`, `eval`, `replay`"
    return Fault("splits of one image, without most classes", how, "all work")


def no_variance(world: World) -> Fault:
    """A batch norm that gets one value of one image."""
    network = [*world.network, "--model-args", "normed=true", "--data", world.images, "--calibration-images", 1]
    weights = world.root / "normed.safetensors"
    works("train", *network, "--epochs", 1, "--out", weights)
    say = "batch norm '10' sees a single value a channel"
    out = ["--checkpoint", weights, "--budget", 0.5, "--out", world.root / "never"]
    refuses(world, say, "search", *network, *out)
    refuses(world, say, "compare", *network, *out, "--methods", "uniform")
    how = "`--calibration-images 1` and a batch norm after the global pooling: `search`, `compare`"
    return Fault("a variance of one value", how, "exit code 2: the layer, and to ask for two images")


def nothing_to_train_on(world: World) -> Fault:
    """Everything is held out."""
    one, out = f"folder:{world.root / 'one'}", world.root / "never"
    if not (world.root / "one").is_dir():
        write_images(world.root / "one", 1, 1)
    refuses(world, "are more than the 3 training images", *searching(world, None, one, out=out))
    held = ["--search-images", 41, "--calibration-images", 1]
    refuses(world, "41 search images leave 1 of 42 training images", *searching(world, None, None, *held, out=out))
    how = "one image a class, or `--search-images` that leave one: `search`"
    return Fault("nothing left to train on", how, "exit code 2 before any work, and how many there are")


def claims(path: Path, side: int) -> None:
    """A PNG of a few bytes whose header tells of side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def image_bombs(world: World) -> Fault:
    """Images of a few bytes and more pixels than fit anywhere, and a page for a printer."""
    images, out = write_images(world.root / "bombs"), world.root / "never"
    path = world.root / "bombs" / "train" / "a" / "0.png"
    bombs: list[Callable[[], object]] = [
        lambda: claims(path, 50_000),
        lambda: Image.new("1", (12_000, 12_000)).save(path),
        lambda: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(pwned) print\n"),
    ]
    whole = path.read_bytes()
    for make in bombs:
        make()
        for size in ([], ["--image-size", 80]):
            say = f"image '{path}' cannot be read"
            refuses(world, say, "train", *world.network, "--data", images, *size, "--out", out / "dense.safetensors")
            refuses(world, say, *searching(world, None, images, *size, out=out))
            if not size:
                refuses(world, say, "eval", world.run, "--data", images)
    path.write_bytes(whole)
    how = "a PNG that claims 50,000 x 50,000 pixels, a sound one of 12,000 x 12,000 in 18 KB, PostScript named `.png`"
    return Fault("decompression bombs among images", f"{how}: `train`, `search`, `eval`", "exit code 2: the file")


def archive_bombs(world: World) -> Fault:
    """Weights that unpack to more than the file, and archives of data sets that are not the published ones."""
    plain, bomb, out = world.root / "plain.pt", world.root / "bomb.pt", world.root / "never"
    torch.save({"0.weight": torch.zeros(1 << 24)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    refuses(world, f"{bomb} has", *searching(world, bomb, out=out))
    refuses(world, "unpacks to 67,1", "eval", *world.network, "--data", world.images, "--checkpoint", bomb)
    folder = world.root / "imagenet"
    folder.mkdir()
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(plain, "../escaped")
    asked = ["--data", "imagenet", "--data-root", folder, "--out", out]
    refuses(world, "imagenet is not in", "train", *world.network, *asked)
    how = (
        "a checkpoint of 65 KB that unpacks to 64 MiB: `search`, `eval`; an archive of ImageNet with a member "
        "`../escaped`: `train`"
    )
    return Fault("decompression bombs and archives that escape", how, "exit code 2, and nothing is unpacked")


def text_bombs(world: World) -> Fault:
    """Text that stands for more than there is memory, or that a reader loses itself in."""
    many = "\n".join(f"{one}: &{one} [{', '.join([f'*{other}'] * 9)}]" for other, one in pairwise("abcdefghij"))
    aliases, deep, digits = f"model:\n  a: &a [{'x, ' * 9}]\n" + indent(many, "  "), "[" * 100_000, "9" * 5000
    out, path = world.root / "never", world.root / "search.yaml"
    for text, say in ((aliases, "model is "), (f"model: {deep}", "is not YAML"), (f"seed: {digits}", "is not YAML")):
        path.write_text(text)
        refuses(world, say, "search", "--config", path, "--out", out)
    plan = world.root / "plan.json"
    for text in ('{"a":' * 100_000, f'{{"format": "rlprune-plan", "version": {digits}}}'):
        plan.write_text(text)
        refuses(world, f"{plan} is not JSON", "prune", "--plan", plan, "--checkpoint", world.weights, "--out", out)
        refuses(world, f"{plan} is not JSON", "export", plan)
    rows = 2_000_000
    equal = {"group": pa.array(["0"] * rows), "keep_ratio": pa.array(np.full(rows, 0.5))}
    write_table(pa.table(equal), world.root / "ratios.parquet")
    given = ["--ratios", world.root / "ratios.parquet", *world.network, "--checkpoint", world.weights, "--out", out]
    refuses(world, f"it has {rows:,} rows", "prune", *given)
    how = (
        "YAML whose aliases stand for 3.5 GB, brackets in 100,000 brackets, a number of 5,000 digits: `--config`, "
        "`--plan`; a parquet table of two million equal rows: `--ratios`"
    )
    return Fault("decompression bombs made of text", how, "exit code 2: the file")


def foreign_code(world: World) -> Fault:
    """A run that somebody else has made, with code of its own, and one that names a function everybody has."""
    folder, marker = world.root / "foreign", world.root / "ran"
    shutil.copytree(world.run, folder)
    (folder / "net.py").write_text(f"open({str(marker)!r}, 'w')\n{NET}")
    mine = f"{world.root / 'net.py'}:make"
    for theirs, args in ((f"{os.__file__}:system", {"command": f"touch {marker}"}), (f"{folder / 'net.py'}:make", {})):
        for path in ("plan.json", "pruned/plan.json", "pruned/config.json", "policy/policy.json", "config.yaml"):
            text = (world.run / path).read_text().replace(mine, theirs)
            (folder / path).write_text(text.replace('"args": {}', f'"args": {json.dumps(args)}'))
        out = ["--out", world.root / "never"]
        words = [["eval", folder], ["finetune", folder, *out], ["replay", folder, *out], ["bench", folder]]
        words += [["replay", folder / "policy", *out], ["prune", "--plan", folder, *out]]
        words += [["export", folder, "--format", form] for form in ("python", "torch-export", "onnx")]
        for each in words:
            refuses(world, f"would run the code of '{theirs}', which you have never named", *each)
        for reader in (load, from_pretrained):
            with contextlib.suppress(UserError):
                reader(folder)
                raise AssertionError(f"{reader} ran {theirs}")
        works("export", folder)
        assert not marker.exists(), f"{theirs} was run"
    load(folder, model=mine)
    how = (
        "a run folder whose files name a `net.py` in it, or `os.py:system` with a command: `eval`, `finetune`, "
        "`replay`, `prune`, `bench`, `export`, `rlprune.load`"
    )
    return Fault("code in a folder from elsewhere", how, "exit code 2: the file, and how to name it. It is not run")


NONE_OF_THEM = (10**6, 0, -3, 1.5, "large", float("nan"))
SENSELESS: dict[str, tuple[object, ...]] = {"image_size": NONE_OF_THEM, "classes": (10**9, *NONE_OF_THEM)}
HUGE = (
    ("resnet20", {"width": 10**9}), ("resnet20", {"width": float("nan")}), ("vgg16", {"width": 64}),
    ("torchvision/resnet50", {"width_per_group": 10**7}),
)  # fmt: skip
SPARE = 256 << 10
"""KiB that a refusal may take, libraries that are loaded for it included."""


def senseless_sizes(world: World) -> Fault:
    """Numbers in a plan and a policy for which there is no memory, or no meaning."""
    folder, out = world.root / "senseless", ["--out", world.root / "never"]
    shutil.copytree(world.run, folder)
    pruned, whole = folder / "pruned" / "plan.json", json.loads((folder / "plan.json").read_text())
    of_plan = [["eval", folder], ["finetune", folder, *out], ["prune", "--plan", folder, *out], ["bench", folder]]
    of_plan += [["export", folder, "--format", form] for form in ("python", "torch-export", "onnx")]
    grown = watch_memory()
    plans = [with_network(whole, **{name: value}) for name, values in SENSELESS.items() for value in values]
    plans += [with_network(whole, model=model, args=args, image_size=32) for model, args in HUGE]
    kept = whole["provenance"]["data_settings"]
    plans += [with_provenance(whole, {**kept, "image_size": value}) for value in NONE_OF_THEM]
    for plan in plans:
        for path in (folder / "plan.json", pruned):
            path.write_text(json.dumps(plan))
        for words in of_plan:
            refuses(world, "", *words)
    policy = json.loads((folder / "policy" / "policy.json").read_text())
    settings = [{"image_size": value} for value in NONE_OF_THEM]
    settings += [{"model": model, "model_args": f"{key}={value}", "checkpoint": None}
                 for model, args in HUGE for key, value in args.items()]  # fmt: skip
    for each in settings:
        changed = {**policy, "settings": {**policy["settings"], **each}}
        (folder / "policy" / "policy.json").write_text(json.dumps(changed))
        refuses(world, "", "replay", folder, *out)
    assert grown() < SPARE, "a refusal has taken too much memory"
    how = (
        "`image_size` and `classes` of a million and more, 0, -3, 1.5, text, NaN, in the network, the images or the "
        "policy's settings; a width of a billion, of NaN, and of 64 where there is no memory for it: `eval`, "
        "`finetune`, `prune`, `bench`, `export`, `replay`"
    )
    return Fault(
        "sizes without sense in a plan or a policy", how, "exit code 2: what it is, before any memory is taken"
    )


def with_network(plan: dict, **changes: object) -> dict:
    """A plan of another network."""
    return {**plan, "network": {**plan["network"], **changes}}


def with_provenance(plan: dict, images: dict) -> dict:
    """A plan that was made on other images."""
    return {**plan, "provenance": {**plan["provenance"], "data_settings": images}}


class Bomb:
    """What makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.marker), "w")


def bombs_in(world: World, name: str) -> list[bytes]:
    """Pickles in the forms that a file of some name may be taken for."""
    bomb, whole, array = Bomb(marker_of(world)), io.BytesIO(), io.BytesIO()
    torch.save({"0.weight": bomb}, whole)
    np.save(array, np.array([bomb], dtype=object), allow_pickle=True)
    plain = [pickle.dumps(bomb), pickle.dumps({"state_dict": bomb}, protocol=2)]
    return [*plain, whole.getvalue(), array.getvalue()] if Path(name).suffix in WEIGHTS else plain[:1]


def marker_of(world: World) -> Path:
    """What the bombs make."""
    return world.root / "unpickled"


def put(world: World, path: Path) -> Iterator[None]:
    """Put bombs in the place of a file, one after the other; then it is as it was."""
    before = path.read_bytes() if path.is_file() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    for bomb in bombs_in(world, path.name):
        path.write_bytes(bomb)
        yield
    path.unlink()
    if before is not None:
        path.write_bytes(before)


def as_checkpoint(world: World) -> Iterator[list[object]]:
    """Every command that takes weights."""
    network = [*world.network, "--data", world.images]
    never = ["--budget", 0.5, "--out", world.root / "never"]
    for name in ("weights.pt", "weights.safetensors", "weights.npz"):
        for _ in put(world, path := world.root / name):
            given = ["--checkpoint", path]
            yield ["train", *network, *given, "--out", world.root / "never.safetensors"]
            yield ["search", *network, *given, *never]
            yield ["compare", *network, *given, *never]
            yield ["eval", *network, *given]
            yield ["inspect", *network, *given]
            yield ["prune", "--plan", world.run, *given, *never]
            yield ["replay", world.run, *given, *never]


def as_teacher(world: World) -> Iterator[list[object]]:
    """Weights to learn from while a pruned network is fine-tuned."""
    for name in ("weights.pt", "weights.safetensors", "weights.npz"):
        for _ in put(world, path := world.root / name):
            yield ["finetune", world.run, "--teacher", path, "--epochs", 1, "--out", world.root / "never"]


def as_plan(world: World) -> Iterator[list[object]]:
    """A plan that is none."""
    for name in ("plan.json", "plan.pt", "plan.pkl"):
        for _ in put(world, path := world.root / name):
            yield [
                "prune",
                "--plan",
                path,
                *world.network,
                "--checkpoint",
                world.weights,
                "--out",
                world.root / "never",
            ]


def as_ratios(world: World) -> Iterator[list[object]]:
    """A table that is none."""
    given = [*world.network, "--data", world.images, "--checkpoint", world.weights, "--out", world.root / "never"]
    for name in ("ratios.csv", "ratios.json", "ratios.parquet", "ratios.pkl"):
        for _ in put(world, path := world.root / name):
            yield ["prune", "--ratios", path, *given]


def as_config(world: World) -> Iterator[list[object]]:
    """Settings of every command."""
    for command in COMMANDS:
        for _ in put(world, path := world.root / "settings.yaml"):
            yield [command, "--config", path]


def as_source(world: World) -> Iterator[list[object]]:
    """A file where a folder belongs, and every file in a run folder, also those that an interrupted run leaves."""
    for name in ("run.pt", "run.json"):
        for _ in put(world, path := world.root / name):
            yield from readers(world, path)
    folder = world.root / "bombed"
    shutil.copytree(world.run, folder)
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    for name in [*names, Path("finetune.state"), Path("pruned/pytorch_model.bin"), Path("gates.json")]:
        for _ in put(world, folder / name):
            yield from readers(world, folder)
    (folder / "result.json").unlink()
    for name in ("state/inputs.json", "state/run.json", "state/finetune.pt", "state/stages.pt", "episodes.csv"):
        for _ in put(world, folder / name):
            yield searching(world, out=folder)
    yield from comparisons(world)


def comparisons(world: World) -> Iterator[list[object]]:
    """Every file of a contest."""
    words = ["compare", *world.network, "--data", world.images, "--checkpoint", world.weights, "--budget", 0.5]
    words += ["--methods", "uniform", "--seeds", 1, "--out", world.root / "contest"]
    works(*words)
    for name in ("comparison.json", "cells.csv", "curves.csv", "state/run.json", "episodes.csv"):
        for _ in put(world, world.root / "contest" / name):
            yield words
        (world.root / "contest" / "comparison.json").unlink(missing_ok=True)


def readers(world: World, source: Path) -> Iterator[list[object]]:
    """Every command that takes a folder of results."""
    never = ["--out", world.root / "never"]
    yield ["eval", source]
    yield ["finetune", source, "--epochs", 1, *never]
    yield ["replay", source, *never]
    yield ["prune", "--plan", source, *never]
    yield ["export", source]
    yield ["export", source, "--format", "python", *never]
    yield ["report", source, *never]
    yield ["bench", source, "--backend", "nothing"]


def as_runs(world: World) -> Iterator[list[object]]:
    """Several runs on one page."""
    for name in ("result.json", "episodes.csv"):
        for _ in put(world, path := world.root / "other" / name):
            yield ["report", world.run, path.parent, "--out", world.root / "never.html"]


def as_data(world: World) -> Iterator[list[object]]:
    """An image that is none."""
    images = write_images(world.root / "pictures")
    for _ in put(world, world.root / "pictures" / "train" / "a" / "0.png"):
        for size in (12, 80):
            given = ["--data", images, "--image-size", size, "--epochs", 1]
            yield ["train", *world.network, *given, "--out", world.root / "never.safetensors"]


def as_data_root(world: World) -> Iterator[list[object]]:
    """Data sets known by name, two of which are pickles where they come from."""
    files = {
        "cifar10": [f"cifar-10-batches-py/{name}" for name in ("data_batch_1", "test_batch", "batches.meta")],
        "cifar100": [f"cifar-100-python/{name}" for name in ("train", "test", "meta")],
        "fashion-mnist": ["FashionMNIST/processed/training.pt", "FashionMNIST/raw/train-images-idx3-ubyte"],
        "imagenet": ["meta.bin", "ILSVRC2012_devkit_t12.tar.gz"],
    }
    for name, paths in files.items():
        root = world.root / f"root-{name}"
        for path in paths:
            for bomb in bombs_in(world, "any.pt"):
                for place in paths:
                    (root / place).parent.mkdir(parents=True, exist_ok=True)
                    (root / place).write_bytes(bomb)
                (root / path).write_bytes(bomb)
                given = ["--data", name, "--data-root", root]
                yield ["train", *world.network, *given, "--out", world.root / "never.safetensors"]


def as_out(world: World) -> Iterator[list[object]]:
    """What an interrupted training leaves beside its result."""
    for _ in put(world, world.root / "again.state"):
        given = [*world.network, "--data", world.images, "--epochs", 1]
        yield ["train", *given, "--out", world.root / "again.safetensors"]
    for _ in put(world, world.root / "tuned" / "finetune.state"):
        yield ["finetune", world.run, "--epochs", 1, "--out", world.root / "tuned"]


PICKLED: dict[str, Callable[[World], Iterator[list[object]]]] = {
    "checkpoint": as_checkpoint, "teacher": as_teacher, "plan": as_plan, "ratios": as_ratios, "config": as_config,
    "source": as_source, "runs": as_runs, "data": as_data, "data_root": as_data_root, "out": as_out,
}  # fmt: skip
"""Every setting that names a file or a folder, and commands that would open a bomb there."""
WEIGHTS = (".pt", ".safetensors", ".npz", ".npy", ".state", ".zip", ".bin")


def asked_to_unpickle(world: World, setting: str) -> int:
    """How many commands have left a bomb of a setting as it is."""
    commands = 0
    for words in PICKLED[setting](world):
        commands += 1
        code, _, err = told(*words)
        assert code in (0, 2), f"{words} ended with {code}: {err}"
        assert not marker_of(world).exists(), f"{words} has unpickled a file"
    return commands


def unpickled(world: World) -> Fault:
    """Files whose unpickling runs code."""
    total = sum(asked_to_unpickle(world, setting) for setting in PICKLED)
    every = ", ".join(f"`{name}`" for name in PICKLED)
    how = f"pickles, torch files and arrays in every file that a setting names ({every}), {total} commands"
    return Fault("pickles that run code", how, "exit code 2, or the file is not read. No code is run")


FAULTS: list[Callable[[World], Fault]] = [
    sick_weights, overflow, dead_layers, one_colour, small_splits, no_variance, nothing_to_train_on,
    image_bombs, archive_bombs, text_bombs, senseless_sizes, foreign_code, unpickled,
]  # fmt: skip


if __name__ == "__main__":
    main()
