"""What can be exported gives what is deployed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gated import MODELS, PIXELS, gate, images, network

from rlprune.exports.onnx import INPUT, open_session, write_onnx
from rlprune.gating.masked import MaskedNetwork, traceable
from rlprune.gating.skipping import SkippingNetwork


@pytest.mark.parametrize(("mix", "kind"), [
    (1.0, {}), (0.5, {"recurrent": True}), (0.0, {"predicts": False, "acts": False}), (1.0, {"acts": False}),
    (1.0, {"predicts": False})
])  # fmt: skip
@pytest.mark.parametrize("name", MODELS)
def test_the_same_logits(name: str, mix: float, kind: dict[str, bool]) -> None:
    made = gate(network(name), mix, **kind)
    made.runtime.budgets, made.runtime.shifts = torch.tensor([0.2, 0.9]).double(), torch.tensor([0.3, -0.1]).double()
    with torch.no_grad():
        expected = made.gated(images(4))
        masked = MaskedNetwork(SkippingNetwork(made.gated)).eval()
        torch.testing.assert_close(masked(images(4)), expected, rtol=1e-4, atol=1e-5)
        # Nothing of it stays behind.
        torch.testing.assert_close(made.gated(images(4)), expected, rtol=0, atol=0)


def test_it_can_be_exported_for_any_number_of_images() -> None:
    made = gate(network("vgg11"), 0.5)
    masked = MaskedNetwork(SkippingNetwork(made.gated)).eval()
    program = torch.export.export(masked, (images(2),), dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}})
    with torch.no_grad():
        for number in (1, 5):
            torch.testing.assert_close(program.module()(images(number)), masked(images(number)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mix", "recurrent"), [(0.5, False), (1.0, True)])
def test_onnx_runtime_gives_the_same(mix: float, recurrent: bool, tmp_path: Path) -> None:
    made = gate(network("vgg11"), mix, recurrent=recurrent)
    masked = traceable(SkippingNetwork(made.gated))
    found = write_onnx(masked, (3, PIXELS, PIXELS), tmp_path / "masked.onnx")
    assert found["max_error"] < 1e-4
    session = open_session(tmp_path / "masked.onnx")
    with torch.no_grad():
        expected = made.gated(images(4)).numpy()
    np.testing.assert_allclose(session.run(None, {INPUT: images(4).numpy()})[0], expected, rtol=1e-3, atol=1e-4)
