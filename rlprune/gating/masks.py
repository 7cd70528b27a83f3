"""Which channels run for an image: the masks of two importances, one of the image and one of all images, merged.

Chen, Chen & Pan, "Storage Efficient and Dynamic Flexible Runtime Channel Pruning via Deep Reinforcement Learning"
(NeurIPS 2020). A keep ratio ``d`` keeps ``ceil(d * C)`` of C channels. In NumPy, which for one image is several times
faster than tensors.
"""

import numpy as np


def kept_count(ratio: np.ndarray, channels: np.ndarray | int) -> np.ndarray:
    """How many channels keep ratios keep: ``ceil(ratio * channels)``, at least 1.

    Ratios that rounding has put a hair above a whole number of channels keep that number.
    """
    return np.maximum(np.ceil(ratio * channels - 1e-6), 1).astype(np.int64)


def removed_count(keep: np.ndarray, channels: int, mix: float) -> np.ndarray:
    """How many channels no image ever needs: floor((1 - mix) * n), where the static agent wants n gone."""
    unwanted = channels - kept_count(keep, channels)
    return np.floor((1 - mix) * unwanted + 1e-6).astype(np.int64)


def lowest(scores: np.ndarray, number: np.ndarray) -> np.ndarray:
    """(images, C) bool, the lowest scores of every row; of equal ones those that come first.

    Args:
        scores: (images, C).
        number: (images,) how many.
    """
    first = np.arange(scores.shape[1]) < number[:, None]
    taken = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(taken, scores.argsort(axis=1, kind="stable"), first, axis=1)
    return taken


def lowest_part(scores: np.ndarray, part: float, among: np.ndarray) -> np.ndarray:
    """(images, C) bool, the floor(part * n) lowest scores of the n in every row that may be taken.

    Args:
        scores: (images, C).
        part: in [0, 1].
        among: (images, C) bool, which may be taken.
    """
    behind = np.where(among, scores, np.inf)
    return lowest(behind, np.floor(part * among.sum(axis=1) + 1e-6)) & among


def permanent(static: np.ndarray, keep: np.ndarray, mix: float) -> np.ndarray:
    """The channels that no image ever needs and that need not be stored: the least important of all images.

    Args:
        static: (images, C) importance for all images; every row has the same where all have one storage.
        keep: (images,) static keep ratios.
        mix: 0, all that the static agent wants gone, to 1, none.

    Returns:
        (images, C) bool.
    """
    return lowest(static, removed_count(keep, static.shape[1], mix))


def merge(
    runtime: np.ndarray, static: np.ndarray, keep_runtime: np.ndarray, keep_static: np.ndarray, mix: float
) -> np.ndarray:
    """The channels that run.

    What both agents want gone goes. Of what only the runtime agent wants gone, the floor(mix * n) least important for
    the image go; of what only the static agent wants gone, the floor((1 - mix) * n) least important for all. By these
    three rules alone a channel counted as permanently removed can still run: where what both want gone is of higher
    static importance, the quota of the static agent shrinks. Here it never does, for it is not stored.

    Args:
        runtime: (images, C) importance for each image.
        static: (C,) importance for all images.
        keep_runtime, keep_static: (images,) keep ratios.
        mix: 0, the static agent decides alone, to 1, the runtime agent does.

    Returns:
        (images, C) bool, at least one True in every row.
    """
    channels = runtime.shape[1]
    off_runtime = lowest(runtime, channels - kept_count(keep_runtime, channels))
    if mix == 1:
        return ~off_runtime
    shared = np.broadcast_to(static, runtime.shape)
    off_static = lowest(shared, channels - kept_count(keep_static, channels))
    gone = (off_runtime & off_static) | permanent(shared, keep_static, mix)
    gone |= lowest_part(runtime, mix, off_runtime & ~off_static)
    gone |= lowest_part(shared, 1 - mix, off_static & ~off_runtime)
    # The most important channel of all runs where the two would leave none.
    gone[gone.all(axis=1), static.argmax()] = False
    return ~gone
