"""The codes that a run's model gives to images, and how well it reconstructs them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.data import ImageDataset, split
from fqvae.models.autoencoder import to_float
from fqvae.runs.run import Run

# int64 indices of a discrete model, float32 numbers of another; (samples, latents).
Codes: TypeAlias = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Images and what a model makes of them, nothing drawn.

    index: int64 (samples,), the images' numbers. factors: int64 (samples, factors).
    codes: (samples, M), int64 indices for a discrete model, else float32.
    error: the mean squared error of the reconstructions, in the units of `to_float`.
    """

    index: NDArray[np.int64]
    factors: NDArray[np.int64]
    codes: Codes
    error: float


def held_out(dataset: ImageDataset, count: int, seed: int = 0) -> NDArray[np.int64]:
    """The numbers of `count` different images of the test split, in random order: int64 (count,).

    A smaller count gives the beginning of a larger one. Raises ValueError for more than there are.
    """
    test = split(dataset).test
    if not 1 <= count <= len(test):
        raise ValueError(
            f"samples must be at least 1 and at most {len(test)}, the test images of {dataset.name}, "
            f"but were {count}"
        )
    return test[np.random.default_rng(seed).permutation(len(test))[:count]]


def encode(run: Run, index: NDArray[np.int64], *, batch_size: int = 256, progress: bool = False) -> Encoded:
    """Encode images, and decode them again for the error.

    An image's code depends neither on its place in the index nor on how many images there are.

    Args:
        run: an open one.
        index: numbers of images, int64 (samples,).
        batch_size: images at a time; may change the last digits of codes that are floating-point.
        progress: show a progress bar on standard error.
    """
    codes, total = [], 0.0
    for images, part in _batches(run, index, batch_size, progress):
        codes.append(part)
        with torch.no_grad(), _float32():
            decoded = run.model.decode(part)
        total += (decoded - images).square().sum(dtype=torch.float64).item()
    pixels = int(np.prod(run.dataset.image_shape))
    return Encoded(
        index,
        run.dataset.factors(index).numpy(),
        torch.cat(codes).cpu().numpy(),
        total / (len(index) * pixels),
    )


def encode_codes(
    run: Run, index: NDArray[np.int64], *, batch_size: int = 256, progress: bool = False
) -> Codes:
    """The codes alone, (samples, M); arguments as for `encode`, at least one image."""
    parts = [codes for _, codes in _batches(run, index, batch_size, progress)]
    return torch.cat(parts).cpu().numpy()


def _batches(
    run: Run, index: NDArray[np.int64], batch_size: int, progress: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in the units of `to_float` and their codes, on the model's device."""
    from tqdm import tqdm  # from the extra `train`: a model loads without it

    device = next(run.model.parameters()).device
    starts = range(0, len(index), batch_size)
    for start in tqdm(starts, "encoding", disable=not progress, file=sys.stderr, leave=False):
        part = index[start : start + batch_size]
        # Matrix products round differently for other numbers of rows: the last batch is filled up.
        images = to_float(run.dataset.images(np.resize(part, batch_size)).to(device))
        with torch.no_grad(), _float32():
            codes = run.model.encode(images)
        yield images[: len(part)], codes[: len(part)]


def _float32() -> AbstractContextManager[None]:
    """Convolutions on a GPU that give the same each time, without TensorFloat-32's 10 bits."""
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False
    )
    return context
