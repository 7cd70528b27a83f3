"""What is evaluated is the network that the user gets."""

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.repaired import RepairedRunner
from rlprune.evaluation.sliced import SliceRunner
from rlprune.methods.recovery.base import Repairs
from rlprune.plans.counts import top_mask
from rlprune.tasks.classification import calibrated
from rlprune.tracing.build import build_graph

CALIBRATION, IMAGES, LABELS = torch.randn(9, 3, 32, 32), torch.randn(8, 3, 32, 32), torch.arange(8) % 4


@pytest.mark.parametrize("text", ["merge", "bias,merge", "reconstruct,bn", "merge,bias,reconstruct,bn"])
def test_losses_are_those_of_the_final_network(network: nn.Module, text: str) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    scores, counts = np.random.default_rng(0).random(int(graph.sizes.sum())), (graph.sizes + 1) // 2
    repairs = Repairs(text, network, graph, CALIBRATION)
    evaluator = Evaluator(RepairedRunner(repairs.cut, graph, chunk=3), scores, IMAGES, LABELS)
    # Nothing of another plan stays.
    evaluator(graph.sizes)
    found = evaluator(counts)
    final = Repairs(text, network, graph, CALIBRATION).cut(top_mask(graph, counts, scores))
    with torch.no_grad():
        expected = calibrated(final(IMAGES), LABELS)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert found.accuracy == expected.accuracy


def test_with_batch_norm_alone_it_is_what_slices_are(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    kept = top_mask(graph, (graph.sizes + 1) // 2, np.random.default_rng(0).random(int(graph.sizes.sum())))
    repairs = Repairs("bn", network, graph, CALIBRATION)
    given = RepairedRunner(repairs.cut, graph).logits(kept, IMAGES)
    expected = SliceRunner(network, graph, CALIBRATION).logits(kept, IMAGES)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
