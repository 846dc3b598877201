"""Checkpoints: written whole or not at all, read without running anything that is in them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fqvae.models.autoencoder import Autoencoder
from fqvae.training.config import RunConfig, from_flat

FORMAT = 1
FILE = "last.ckpt"  # in a run's folder


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or belongs to another configuration."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: the run's configuration, the steps it has taken, and the weights of `Training`."""

    path: Path
    config: RunConfig
    step: int
    state: dict[str, Tensor]


def checkpoint_path(run_or_checkpoint: str | Path) -> Path:
    """The checkpoint file of a run's folder; a file is taken as it is. Raises FileNotFoundError."""
    path = Path(run_or_checkpoint)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {FILE} in the folder {path}"
            if path.is_dir()
            else f"there is no run or checkpoint {path}"
        )
    return file


def read_checkpoint(run_or_checkpoint: str | Path) -> Checkpoint:
    """Read a run's checkpoint, its tensors on the CPU.

    Raises FileNotFoundError, CheckpointError; ConfigError for a configuration that is not this version's.
    """
    path = checkpoint_path(run_or_checkpoint)
    content = read_plain(path)
    header = content.get("fqvae")
    if not isinstance(header, dict) or "state_dict" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of fqvae")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has the format {header.get('format')}, but this version reads {FORMAT}"
        )
    return Checkpoint(path, from_flat(header["config"]), int(header["step"]), content["state_dict"])


def read_plain(path: str | Path) -> dict[str, Any]:
    """The content of a file of tensors and plain values. Raises CheckpointError if it is anything else."""
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of many types, by where the damage is
            raise CheckpointError(
                f"{path} is damaged, or is not a checkpoint ({type(error).__name__})"
            ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of fqvae")
    return content


def write_plain(content: dict[str, Any], path: str | Path) -> None:
    """Write beside the path, then rename: the file is the old or the new one, whole, whatever happens.

    Raises OSError if it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError):
            raise OSError(f"could not write {path}, what was there is kept: {error}") from error
        raise


def load(run_or_checkpoint: str | Path, *, device: torch.device | str = "cpu") -> Autoencoder:
    """The trained autoencoder of a run's folder or of a checkpoint file, in `eval()`.

    Raises FileNotFoundError; CheckpointError for a file that is damaged, or no checkpoint, or does not fit
    the configuration it names.
    """
    return build_model(read_checkpoint(run_or_checkpoint)).to(device)


def build_model(checkpoint: Checkpoint) -> Autoencoder:
    """The autoencoder of a checkpoint, in `eval()`. Raises CheckpointError if it does not fit."""
    model = Autoencoder(checkpoint.config.model, checkpoint.config.data.size)
    prefix = "autoencoder."
    state = {
        name[len(prefix) :]: value for name, value in checkpoint.state.items() if name.startswith(prefix)
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit its own configuration: {error}") from error
    return model.eval()
