import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = """
from rlprune.errors import UserError
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import read_data

{}try:
    images = read_data({{"data": "folder:{}", "image_size": 72, "workers": 1}}).train
    print("read", *next(images.batches(4))[0].shape)
except UserError as error:
    print(error)
"""
REFUSED = "workers=1 starts processes that run script.py anew from its start: put what it does under `if __name__"


@pytest.mark.parametrize(("guarded", "said"), [(False, REFUSED), (True, "read 4 3 72 72")])
def test_a_script_at_top_level(tmp_path: Path, guarded: bool, said: str) -> None:
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(8):
                Image.effect_noise((80, 80), 50).convert("RGB").save(tmp_path / part / name / f"{number}.png")
    text = SCRIPT.format("", tmp_path)
    if guarded:
        start, _, body = text.partition("try:")
        indented = "".join(f"    {line}\n" for line in f"try:{body}".splitlines())
        text = f'{start}if __name__ == "__main__":\n{indented}'
    (tmp_path / "script.py").write_text(text)
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ended.stdout.startswith(said), ended.stderr
