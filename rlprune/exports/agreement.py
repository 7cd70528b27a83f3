"""How far what a file computes is from what the network computes."""

from torch import Tensor


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference between outputs, relative to the largest of them where that is above 1.

    Rounding grows with the numbers: float32 logits of 300 cannot agree to the digits that logits of 1 agree to.

    Args:
        found, expected: outputs of the same shape.

    Returns:
        The error; NaN where a number of either is NaN.
    """
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
