"""A run's model and data, and the codes that it gives to held-out images."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fqvae.data import FactorDataset, open_dataset, split
from fqvae.metrics import code_ranks
from fqvae.models.autoencoder import Autoencoder, to_float
from fqvae.training.checkpoint import build_model, checkpoint_path, read_checkpoint
from fqvae.training.config import RunConfig


@dataclass(frozen=True, eq=False)
class Run:
    """A run's folder, or a single checkpoint, opened.

    folder: where results belong. checkpoint: the file, and its SHA-256 as hexadecimal digits. step: the steps
    that it was trained.
    """

    folder: Path
    checkpoint: Path
    sha256: str
    step: int
    config: RunConfig
    model: Autoencoder
    dataset: FactorDataset

    @property
    def discrete(self) -> bool:
        """Whether its latents are codes of a codebook."""
        return self.model.latent.discrete


@dataclass(frozen=True, eq=False)
class Encoded:
    """Images and what a model makes of them, nothing drawn.

    index: int64 (samples,), the images' numbers. factors: int64 (samples, factors).
    codes: (samples, M), int64 indices for a discrete model, else float32.
    error: the mean squared error of the reconstructions, in the units of `to_float`.
    """

    index: NDArray[np.int64]
    factors: NDArray[np.int64]
    codes: NDArray[np.int64] | NDArray[np.float32]
    error: float


def open_run(
    run_or_checkpoint: str | Path,
    *,
    device: torch.device | str = "cpu",
    root: str | Path | None = None,
    dataset: FactorDataset | None = None,
) -> Run:
    """Open a run.

    Args:
        run_or_checkpoint: a run's folder, or a checkpoint file.
        device: of the model.
        root: where the images are now, if not where the run's configuration says.
        dataset: opened already; by default the one that the configuration names.

    Raises:
        FileNotFoundError: no such run, or no checkpoint in it. CheckpointError: a damaged one.
        Errors of `open_dataset`.
    """
    path = checkpoint_path(run_or_checkpoint)
    checkpoint = read_checkpoint(path)
    config = checkpoint.config
    if dataset is None:
        dataset = open_dataset(config.data.name, root or config.data.root, size=config.data.size)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    model = build_model(checkpoint).to(device)
    return Run(path.parent, path, digest, checkpoint.step, config, model, dataset)


def held_out(dataset: FactorDataset, count: int, seed: int = 0) -> NDArray[np.int64]:
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


@torch.no_grad()
def encode(run: Run, index: NDArray[np.int64], *, batch_size: int = 256, progress: bool = False) -> Encoded:
    """Encode images, and decode them again for the error.

    Args:
        run: an open one.
        index: numbers of images, int64 (samples,).
        batch_size: images at a time.
        progress: show a progress bar on standard error.
    """
    device = next(run.model.parameters()).device
    codes, total = [], 0.0
    starts = range(0, len(index), batch_size)
    for start in tqdm(starts, "encoding", disable=not progress, file=sys.stderr, leave=False):
        images = to_float(run.dataset.images(index[start : start + batch_size]).to(device))
        codes.append(run.model.encode(images))
        total += (run.model.decode(codes[-1]) - images).square().sum(dtype=torch.float64).item()
    pixels = int(np.prod(run.dataset.image_shape))
    return Encoded(
        index,
        run.dataset.factors(index).numpy(),
        torch.cat(codes).cpu().numpy(),
        total / (len(index) * pixels),
    )


def ordered_codes(run: Run, codes: NDArray[np.int64] | NDArray[np.float32]) -> NDArray[np.generic]:
    """Codes as metrics want them: discrete ones by their rank among the codebook's values.

    An index has no order, and trees read order. Codes that are vectors have none either and stay indices.
    """
    if not run.discrete or run.config.model.latent.kind == "vector":
        return codes
    codebook: Tensor = run.model.latent.get_parameter("codebook")
    return code_ranks(codes, codebook.detach().cpu())
