"""What is reported of a gated network."""

import numpy as np
import torch
from gated import gate, images, network

from rlprune.gating.counting import CountingNetwork
from rlprune.gating.skipping import SkippingNetwork


def test_full_precision_within_half_of_it() -> None:
    """Image by image what is deployed, to the last decision."""
    made = gate(network("resnet20"), 0.5)
    counting, module, pictures = CountingNetwork(made.gated), SkippingNetwork(made.gated).eval(), images(8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = torch.cat([counting(pictures[:5]), counting(pictures[5:])])
    alone, ran = [], []
    for picture in pictures:
        alone.append(module(picture[None]))
        ran.append(made.gated.counts()[0])
    torch.testing.assert_close(logits, torch.cat(alone), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(counting.counts(), ran)
