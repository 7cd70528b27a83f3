import csv
import json
import re
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import onnxruntime
import pandas as pd
import pytest
import torch

import rlprune


@pytest.mark.parametrize("source", ["", "plan.json", "pruned"])
@pytest.mark.parametrize("format", ["csv", "json", "md", "latex", "parquet", "html", "amc", "nni", "torch-pruning"])
def test_every_format_tells_the_plan(
    run: Callable[..., Any], searched: Any, tmp_path: Path, source: str, format: str
) -> None:
    file = tmp_path / "sub" / "table"
    code, out, err = run("export", searched.folder / source, "--format", format, "--out", file)
    assert (code, err) == (0, "")
    assert str(file) in out
    expected = [(row["group"], row["kept"]) for row in searched.result["table"]]
    if format == "csv":
        assert [(row["group"], int(row["kept"])) for row in csv.DictReader(StringIO(file.read_text()))] == expected
    elif format == "json":
        assert [(row["group"], row["kept"]) for row in json.loads(file.read_text())] == expected
    elif format == "parquet":
        assert list(pd.read_parquet(file)[["group", "kept"]].itertuples(index=False, name=None)) == expected
    elif format == "html":
        names, *rows = [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in file.read_text().split("<tr")[1:]]
        assert [(row[0], int(row[names.index("kept")])) for row in rows] == expected
    elif format == "amc":
        ratios = [row["kept"] / row["channels"] for row in searched.result["table"]]
        assert [float(ratio) for ratio in file.read_text().split(",")] == pytest.approx(ratios, abs=1e-6)
    elif format == "nni":
        layers = [["stem"], ["inner", "outer"], ["last"]]
        assert [entry["op_names"] for entry in json.loads(file.read_text())] == layers
    elif format == "torch-pruning":
        channels = {"stem": 16, "inner": 32, "outer": 32, "last": 48}
        counts = {name: int(channels[name] * (1 - gone)) for name, gone in json.loads(file.read_text()).items()}
        assert counts == dict(expected) | {"outer": dict(expected)["inner"]}
    else:
        lines = file.read_text().splitlines()
        for group, kept in expected:
            assert any(group in line and f" {kept} " in line for line in lines)


def test_a_table_is_printed(run: Callable[..., Any], searched: Any) -> None:
    code, out, _ = run("export", searched.folder)
    assert code == 0
    assert out == (searched.folder / "ratios.csv").read_text()
    assert list(csv.DictReader(StringIO(out)))
    assert json.loads(run("export", searched.folder, "--json").out) == {"text": out}


def test_a_folder_is_no_file(run: Callable[..., Any], searched: Any, tmp_path: Path) -> None:
    code, out, err = run("export", searched.folder, "--out", tmp_path)
    assert (code, out) == (2, "")
    assert f"--out {tmp_path} is a folder: name a file such as" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "name"), [("torch-export", "model.pt2"), ("python", "model.py")])
def test_the_network_leaves(
    run_json: Callable[..., Any], searched: Any, tmp_path: Path, format: str, name: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(searched.folder / "pruned", folder / "pruned")
    weights = (folder / "pruned" / "model.safetensors").read_bytes()
    assert run_json("export", folder, "--format", format) == {"path": str(folder / "pruned" / name)}
    assert (folder / "pruned" / name).is_file()
    assert (folder / "pruned" / "model.safetensors").read_bytes() == weights
    out = tmp_path / "else" / (name if format == "torch-export" else "")
    run_json("export", folder, "--format", format, "--out", out)
    left = {"model.pt2"} if format == "torch-export" else {"model.py", "model.safetensors"}
    assert {path.name for path in (tmp_path / "else").iterdir()} == left


def test_networks_that_cannot_leave(run: Callable[..., Any], searched: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments, said in (
        ((searched.folder / "plan.json", "--format", "python"), "holds no pruned network"),
        ((searched.folder, "--format", "python", "--out", tmp_path / "file"), "is a file: name a folder for model.py"),
        ((searched.folder, "--format", "torch-export", "--out", tmp_path), "is no .pt2 file: name one such as"),
        (
            (searched.folder, "--format", "torch-export", "--out", tmp_path / "m.pt"),
            "is no .pt2 file: name one such as",
        ),
    ):
        code, out, err = run("export", *arguments)
        assert (code, out) == (2, "")
        assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_pruned_network_as_onnx(
    run: Callable[..., Any], run_json: Callable[..., Any], searched: Any, tmp_path: Path
) -> None:
    out = tmp_path / "network.onnx"
    result = run_json("export", searched.folder, "--format", "onnx", "--out", out, "--int8")
    assert {path.name for path in tmp_path.iterdir()} == {"network.onnx", "network.int8.onnx"}
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    images = torch.randn(7, 3, 16, 16)
    found = session.run(None, {"images": images.numpy()})[0]
    with torch.inference_mode():
        expected = rlprune.load(searched.folder)(images).numpy()
    assert abs(found - expected).max() < 1e-5
    assert (result["inputs"], result["outputs"]) == ({"images": ["batch", 3, 16, 16]}, {"logits": ["batch", 3]})
    assert (result["bytes"], result["path"]) == (out.stat().st_size, str(out))
    # The test images, which the run has looked at as well; a few of 60 may fall on the other side.
    assert result["float_accuracy"] == pytest.approx(searched.result["finetuned_accuracy"], abs=1e-6)
    assert result["int8_accuracy"] == pytest.approx(result["float_accuracy"], abs=0.1)
    assert result["int8"]["bytes"] == (tmp_path / "network.int8.onnx").stat().st_size


@pytest.mark.parametrize(
    ("source", "args", "said"),
    [
        ("", ["--int8"], "--int8 is for --format onnx, not csv"),
        ("episodes.csv", ["--format", "onnx"], "holds no pruned network"),
        ("", ["--format", "onxx"], "did you mean 'onnx'?"),
    ],
)
def test_networks_that_cannot_be_exported(
    run: Callable[..., Any], searched: Any, source: str, args: list[str], said: str
) -> None:
    before = set(searched.folder.rglob("*"))
    code, out, err = run("export", searched.folder / source, *args)
    assert (code, out) == (2, "")
    assert said in err
    assert set(searched.folder.rglob("*")) == before
