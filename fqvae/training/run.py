"""`train`: a run from its configuration to its checkpoint and its picture."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from fqvae.data import ImageDataset, split
from fqvae.files import lock, write_whole
from fqvae.runs import Checkpoint, CheckpointError, RunConfig, encode, open_run, read_checkpoint, to_flat
from fqvae.runs.config import differences
from fqvae.runs.data import check_reopens, check_same, named, open_data, sized
from fqvae.runs.names import CHECKPOINT, CONFIG, CURVES, PICTURE
from fqvae.runs.picture import write_reconstructions
from fqvae.training.callbacks import Checkpoints, SafeCheckpointIO, StepBar
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
    dataset: ImageDataset | None = None,
) -> Outcome:
    """Train, in `folder`: last.ckpt, config.yaml, metrics.csv, TensorBoard's events, reconstructions.png.

    Under torchrun it runs on all of its processes, each with its share of every batch.

    Args:
        config: the run.
        folder: a new or empty one; with `resume` the one of the run to go on with.
        resume: go on at the folder's checkpoint, whose configuration must be this one.
        device: "auto" is CUDA where there is one.
        fast: see `fqvae.training.fast`.
        dataset: opened already; by default the one that the configuration names. If it has a method `reopen`
            (see `ImageDataset`), later commands open it again.

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
    if dataset is not None:
        config = replace(config, data=named(config.data, dataset))
    checkpoint = _resumed(folder, config) if resume else None
    start = checkpoint.step if checkpoint is not None else 0
    if rank == 0 and not resume:
        _check_free(folder)
    trained_on = checkpoint.trained_on if checkpoint is not None else None
    if dataset is None:
        check_reopens(trained_on)
        dataset = open_data(config.data)
    check_same(trained_on, dataset)
    config = replace(config, data=sized(config.data, dataset))
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
            callbacks=[Checkpoints(folder / CHECKPOINT), *([StepBar(refresh_rate=10)] if bar else [])],
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
        run = open_run(folder, device="cuda" if cuda else "cpu", dataset=dataset)
        held_out = split(dataset).valid[:1024]
        losses["held_out"] = encode(run, held_out).error
        write_reconstructions(run, held_out[:16], folder / PICTURE)
    return Outcome(folder, max(module.step, start), finished, losses)


def _resumed(folder: Path, config: RunConfig) -> Checkpoint:
    """The checkpoint at which a run goes on. Raises CheckpointError if its configuration is another."""
    checkpoint = read_checkpoint(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a checkpoint; to go on with a run, name its folder")
    if different := differences(config, checkpoint.config):
        raise CheckpointError(f"{checkpoint.path} belongs to another configuration: {', '.join(different)}")
    return checkpoint


def _check_free(folder: Path) -> None:
    if (folder / CHECKPOINT).exists():
        raise FileExistsError(f"{folder} is in use; resume the run that is there, or name another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is no empty folder, and has no run to resume; name another one")


@contextlib.contextmanager
def _claimed(folder: Path, config: RunConfig, resume: bool) -> Iterator[None]:
    """Make the folder, keep other runs out of it while inside, and write the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not lock(descriptor):
            raise FileExistsError(f"{folder} is in use by a run that is going on")
        if not resume:
            _check_free(folder)
        write_whole(folder / CONFIG, yaml.safe_dump(to_flat(config), sort_keys=False))
        yield
    finally:
        os.close(descriptor)


def _fit(trainer: Trainer, module: Training, folder: Path, resume: bool) -> None:
    try:
        trainer.fit(module, ckpt_path=folder / CHECKPOINT if resume else None)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)  # a full disk, say, is reported without a name
        raise


def _loggers(folder: Path, step: int) -> list[Logger]:
    board = TensorBoardLogger(folder, name="", version="", purge_step=step + 1)
    return [CsvFile(folder / CURVES, step), board]


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
