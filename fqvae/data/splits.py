"""Training, validation and test images of a set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fqvae.data.correlation import Correlation
from fqvae.data.factors import ImageDataset


class Splits(NamedTuple):
    """Numbers of images, int64 (images,) each, in random order."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]


def split(dataset: ImageDataset | int, seed: int = 0) -> Splits:
    """Divide a set at random: a tenth (rounded down) for validation, a tenth for the test, the rest to train.

    Every image is in exactly one part. A set with correlated factors is divided in the same way, and then the
    training part alone is thinned: each of its images is kept with a probability such that those that stay
    follow the correlated distribution (see `Correlation`). Validation and test stay uniform, and the same for
    all strengths, so that results on them can be compared.

    Args:
        dataset: the set, or a number of images.
        seed: int, at least 0.

    Raises:
        ValueError: fewer than ten images; a negative seed.
    """
    length = dataset if isinstance(dataset, int) else len(dataset)
    if length < 10:
        raise ValueError(f"dataset must have at least 10 images, but had {length}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, but was {seed}")
    generator = np.random.default_rng(seed)
    order = generator.permutation(length).astype(np.int64, copy=False)
    tenth = length // 10
    train, valid, test = order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]
    correlation: Correlation | None = getattr(dataset, "correlation", None)
    if correlation is not None:
        train = train[generator.random(len(train)) < correlation.acceptance(train)]
    return Splits(train, valid, test)
