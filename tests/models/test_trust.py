import subprocess
import sys
from pathlib import Path

import pytest

from rlprune.errors import UserError
from rlprune.models import trust as named
from rlprune.models.registry import build_model
from rlprune.models.trust import allowed, home_of, remember, require_named

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(named, "_NAMED", set())


def test_only_files_are_asked_for(tmp_path: Path) -> None:
    for model in ("vgg16", "torchvision/resnet18", "timm/resnet18", None, 3):
        require_named(model, tmp_path)
    for model in ("net.py:make", "net.py", "a.py:b.py:c"):
        with pytest.raises(UserError, match=f"{tmp_path} would run the code of '{model}', .* inspect --model {model}"):
            require_named(model, tmp_path)


def test_a_name_counts_for_that_factory_of_that_file_from_wherever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    remember("net.py:make")
    for model in ("net.py:make", f"{tmp_path}/net.py:make", "./net.py:make", "sub/../net.py:make"):
        require_named(model, tmp_path)
    for model in ("net.py:other", "sub/net.py:make"):
        with pytest.raises(UserError, match="never named"):
            require_named(model, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="never named"):
        require_named("net.py:make", tmp_path)


def test_other_processes_know_it(tmp_path: Path) -> None:
    model = f"{tmp_path}/net.py:make"
    program = "import sys; from rlprune.models import trust; getattr(trust, sys.argv[1])(*sys.argv[2:])"

    def run(*words: str) -> int:
        return subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True).returncode

    assert run("require_named", model, "here") == 1
    assert run("remember", model) == 0
    assert run("require_named", model, "here") == 0
    require_named(model, tmp_path)
    assert allowed() == [model]


def test_where_nothing_can_be_written_a_name_counts_for_the_process(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file in the way")
    remember(f"{tmp_path}/net.py:make")
    require_named(f"{tmp_path}/net.py:make", tmp_path)


@pytest.mark.parametrize("name", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_weights_that_timm_would_read_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} names weights, which --checkpoint reads safely"):
        build_model("timm/resnet18", classes=2, image_size=32, args={name: "weights.pt"})


def test_where_a_file_is_named_is_where_its_imports_are_meant_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"{tmp_path}/repo/models/net.py:make"
    for folder in ("repo/models", "other"):
        (tmp_path / folder).mkdir(parents=True)
    homes = []
    for folder in ("other", "repo", "other", "repo/models", "other", "."):
        monkeypatch.chdir(tmp_path / folder)
        remember(model)
        homes.append(home_of(model))
    repo = tmp_path / "repo"
    assert homes == [None, repo, repo, repo / "models", repo / "models", tmp_path]
