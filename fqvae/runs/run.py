"""A run, opened: its configuration, model and data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from fqvae.data import ImageDataset
from fqvae.models.autoencoder import Autoencoder
from fqvae.runs.checkpoint import build_model, checkpoint_path, read_checkpoint
from fqvae.runs.config import RunConfig
from fqvae.runs.data import check_reopens, check_same, open_data


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
    dataset: ImageDataset

    @property
    def discrete(self) -> bool:
        """Whether its latents are codes of a codebook."""
        return self.model.latent.discrete


def open_run(
    run_or_checkpoint: str | Path,
    *,
    device: torch.device | str = "cpu",
    root: str | Path | None = None,
    dataset: ImageDataset | None = None,
) -> Run:
    """Open a run.

    Args:
        run_or_checkpoint: a run's folder, or a checkpoint file.
        device: of the model; "auto" is CUDA where there is one.
        root: where the images are now, if not where the run's configuration says.
        dataset: opened already; by default the one that the configuration names.

    Raises:
        FileNotFoundError: no such run, or no checkpoint in it. CheckpointError: a damaged one.
        ValueError: a CUDA device where there is none; other images than the run was trained on; a set that
            was given in Python and does not say how it is opened again.
        Exception: what `open_dataset` raises.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device was {str(device)!r}, but PyTorch finds no CUDA device here")
    path = checkpoint_path(run_or_checkpoint)
    checkpoint = read_checkpoint(path)
    config = checkpoint.config
    if dataset is None:
        check_reopens(checkpoint.trained_on, config.data)
        dataset = open_data(config.data, root)
    check_same(checkpoint.trained_on, dataset)
    model = build_model(checkpoint).to(device)
    return Run(path.parent, path, sha256(path), checkpoint.step, config, model, dataset)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
