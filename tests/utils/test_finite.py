from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.evaluation.sliced import SliceRunner, recalibrate
from rlprune.methods.criteria.base import score_channels
from rlprune.tasks.classification import calibrated
from rlprune.tracing.build import build_graph
from rlprune.utils.finite import require_finite_outputs, require_finite_weights


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.BatchNorm1d(5), nn.Linear(5, 2),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("a.weight", torch.tensor([1.0, torch.nan]), "'a.weight' holds NaN or infinite"),
        ("a.weight", torch.tensor(-torch.inf, dtype=torch.bfloat16), "'a.weight' holds NaN or infinite"),
        ("a.weight", torch.tensor(1e300, dtype=torch.float64), "'a.weight' holds NaN or infinite"),
        ("a.weight", torch.tensor([torch.inf]).to(torch.float8_e5m2), "'a.weight' holds NaN or infinite"),
        ("a.running_var", torch.tensor([1.0, -1e-9]), "'a.running_var' holds negative variances"),
        ("a.weight", torch.ones(2, dtype=torch.complex64), "'a.weight' has numbers of the type torch.complex64"),
    ],
    ids=str,
)
def test_weights_that_are_no_numbers_are_refused(name: str, tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=f"w.pt: {message}"):
        require_finite_weights({"good": torch.ones(2), name: tensor}, Path("w.pt"))


def test_all_other_weights_are_not() -> None:
    state = {"a.running_var": torch.zeros(2), "a.running_mean": -torch.ones(2), "n": torch.tensor(-3)}
    require_finite_weights(state | {"small": torch.ones(1).to(torch.float8_e4m3fn)}, Path("w.pt"))


def test_the_first_layer_that_overflows_is_named() -> None:
    module, images = net(), torch.ones(2, 3, 8, 8)
    require_finite_outputs(module, images, "net")
    with torch.no_grad():
        module[0].weight.fill_(1)
        module[2].weight.fill_(3e38)
    module[0].train()
    with pytest.raises(UserError, match=r"^net computes NaN .*'2' is the first layer that does"):
        require_finite_outputs(module, images, "net")
    assert (module.training, module[0].training) == (False, True)
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_variance_of_one_value_is_refused_by_the_name_of_its_layer() -> None:
    module, images = net(), torch.rand(2, 3, 8, 8)
    SliceRunner(module, build_graph(module, images), images)
    with pytest.raises(UserError, match=r"'5' sees a single value .* --calibration-images 2"):
        SliceRunner(module, build_graph(module, images), images[:1])
    with pytest.raises(UserError, match="'5' sees a single value"):
        recalibrate(module, images[:1])


def test_logits_that_are_not_finite_are_a_blind_guess_and_wrong() -> None:
    labels = torch.tensor([0, 1, 0])
    found = calibrated(torch.tensor([[9.0, -9], [-9, 9], [torch.nan, 0]]), labels)
    assert found.accuracy == pytest.approx(2 / 3)
    # Two images are certain; log 2 is chance for the third.
    assert found.loss == pytest.approx(np.log(2) / 3, abs=1e-6)
    assert calibrated(torch.full((3, 2), torch.inf), labels).accuracy == 0


def test_scores_that_are_not_finite_are_refused() -> None:
    module = net()
    graph = build_graph(module, torch.zeros(1, 3, 8, 8))
    with torch.no_grad():
        module[2].weight.fill_(3e38)
    with pytest.raises(UserError, match="channels of '2' cannot be compared"):
        score_channels("l1", module, graph, (torch.zeros(1), torch.zeros(1)))
