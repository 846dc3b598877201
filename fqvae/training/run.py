"""`train`: a run from its configuration to its checkpoint and its picture."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fqvae.data import FactorDataset, split
from fqvae.models.autoencoder import Autoencoder, to_float, to_uint8
from fqvae.training.callbacks import Checkpoints, SafeCheckpointIO, StepBar
from fqvae.training.checkpoint import FILE, CheckpointError, load, read_checkpoint
from fqvae.training.config import RunConfig, differences, to_flat
from fqvae.training.data import open_data
from fqvae.training.fast import FastMode, choose_fast
from fqvae.training.loggers import CsvFile
from fqvae.training.module import Training

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the steps it has taken, whether these are all, and its last losses."""

    folder: Path
    step: int
    finished: bool
    losses: dict[str, float]


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    device: Device = "auto",
    fast: FastMode = "auto",
    dataset: FactorDataset | None = None,
) -> Outcome:
    """Train, in `folder`: last.ckpt, config.yaml, metrics.csv, TensorBoard's events, reconstructions.png.

    Under torchrun it runs on all of its processes, each with its share of every batch.

    Args:
        config: the run.
        folder: a new or empty one; with `resume` the one of the run to go on with.
        resume: go on at the folder's checkpoint, whose configuration must be this one.
        device: "auto" is CUDA where there is one.
        fast: see `fqvae.training.fast`.
        dataset: opened already; by default the one that the configuration names.

    Raises:
        FileExistsError: a folder in use, without `resume`, or by a run that is going on.
        FileNotFoundError, NotADirectoryError: nothing to resume.
        CheckpointError: a damaged checkpoint, or one of another configuration.
        ValueError: a batch that does not fit the set or the processes; a device that is not there.
        NonFiniteError: a loss that is NaN or infinite; the last checkpoint before it is kept.
        OSError: a folder or file that cannot be written.
    """
    if device not in get_args(Device):
        raise ValueError(f"device must be one of {get_args(Device)}, but was {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device was 'cuda', but PyTorch finds no CUDA device here; it may be 'cpu' or 'auto'"
        )
    folder = Path(folder)
    rank = int(os.environ.get("RANK", "0"))
    start = _resume_step(folder, config) if resume else 0
    if rank == 0 and not resume:
        _check_free(folder)
    if dataset is None:
        dataset = open_data(config.data)
    module = Training(config, dataset, split(dataset).train)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    module.use(choose_fast(fast, config.model.network, cuda))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    module.batches(rank, processes)  # an error of theirs before anything is written

    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    # Unused by the one loss is what only the other one reaches.
    distributed = DDPStrategy(find_unused_parameters=module.discriminator is not None)
    bar = sys.stderr.isatty()
    with _quiet(), _claimed(folder, config, resume) if rank == 0 else contextlib.nullcontext():
        trainer = Trainer(
            accelerator="gpu" if cuda else "cpu",
            devices=local,
            num_nodes=processes // local,
            strategy=distributed if processes > 1 else "auto",
            precision="bf16-mixed" if module.fast.bfloat16 else "32-true",
            max_epochs=1,
            logger=_loggers(folder, start),
            callbacks=[Checkpoints(folder / FILE), *([StepBar(refresh_rate=10)] if bar else [])],
            plugins=[SafeCheckpointIO()],
            enable_progress_bar=bar,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        if start < config.steps:
            _fit(trainer, module, folder, resume)

    finished = max(module.step, start) == config.steps
    losses = dict(module.last_losses)
    if finished and rank == 0:
        model = load(folder, device="cuda" if cuda else "cpu")
        held_out = split(dataset).valid[:1024]
        losses["held_out"] = reconstruction_error(model, dataset, held_out)
        _write_picture(model, dataset.images(held_out[:16]), folder / "reconstructions.png")
    return Outcome(folder, max(module.step, start), finished, losses)


@torch.no_grad()
def reconstruction_error(
    model: Autoencoder, dataset: FactorDataset, index: NDArray[np.int64], batch_size: int = 256
) -> float:
    """Mean squared error of the images as their codes describe them, nothing drawn, `to_float`'s units."""
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(index), batch_size):
        images = to_float(dataset.images(index[start : start + batch_size]).to(device))
        total += (model(images) - images).square().sum(dtype=torch.float64).item()
    return total / (len(index) * 3 * model.image_size**2)


def picture(images: Tensor, reconstructions: Tensor, columns: int = 8) -> Tensor:
    """A grid of images, each above its reconstruction: (count, 3, S, S) both, to (H, W, 3), all uint8."""
    count, channels, size, _ = images.shape
    pairs = torch.stack([images, reconstructions], 1)  # (count, 2, 3, S, S)
    rows = -(-count // columns)
    grid = torch.full((rows * columns, 2, channels, size + 2, size + 2), 255, dtype=torch.uint8)
    grid[:count, :, :, 1:-1, 1:-1] = pairs
    grid = grid.view(rows, columns, 2, channels, size + 2, size + 2).permute(0, 2, 4, 1, 5, 3)
    return grid.reshape(rows * 2 * (size + 2), columns * (size + 2), channels)


@torch.no_grad()
def _write_picture(model: Autoencoder, images: Tensor, path: Path) -> None:
    reconstructions = to_uint8(model(images.to(next(model.parameters()).device))).cpu()
    grid = picture(images, reconstructions)
    scale = max(1, 96 // model.image_size)
    image = Image.fromarray(grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy())
    temporary = path.with_suffix(".tmp")
    image.save(temporary, format="PNG")
    os.replace(temporary, path)


def _resume_step(folder: Path, config: RunConfig) -> int:
    """The step at which a run goes on. Raises CheckpointError if its configuration is another."""
    checkpoint = read_checkpoint(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a checkpoint; to go on with a run, name its folder")
    if different := differences(config, checkpoint.config):
        raise CheckpointError(f"{checkpoint.path} belongs to another configuration: {', '.join(different)}")
    return checkpoint.step


def _check_free(folder: Path) -> None:
    if (folder / FILE).exists():
        raise FileExistsError(f"{folder} is in use; resume the run that is there, or name another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is no empty folder, and has no run to resume; name another one")


@contextlib.contextmanager
def _claimed(folder: Path, config: RunConfig, resume: bool) -> Iterator[None]:
    """Make the folder, keep other runs out of it while inside, and write the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"{folder} is in use by a run that is going on") from None
        except OSError:
            pass  # a file system without locks
        if not resume:
            _check_free(folder)
        temporary = folder / "config.tmp"
        temporary.write_text(yaml.safe_dump(to_flat(config), sort_keys=False), encoding="utf-8")
        os.replace(temporary, folder / "config.yaml")
        yield
    finally:
        os.close(descriptor)


def _fit(trainer: Trainer, module: Training, folder: Path, resume: bool) -> None:
    try:
        trainer.fit(module, ckpt_path=folder / FILE if resume else None)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)  # a full disk, say, is reported without a name
        raise


def _loggers(folder: Path, step: int) -> list[Logger]:
    board = TensorBoardLogger(folder, name="", version="", purge_step=step + 1)
    return [CsvFile(folder / "metrics.csv", step), board]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Lightning tells about itself, and warnings about its own insides."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")
        warnings.filterwarnings(
            "ignore", message=r"The number of training batches .* is smaller than the logging"
        )
        for each in loggers:
            each.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
