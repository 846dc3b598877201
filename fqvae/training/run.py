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
from signal import Signals
from typing import Literal, get_args

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from fqvae.data import ImageDataset, split
from fqvae.files import lock, write_whole
from fqvae.runs import Checkpoint, CheckpointError, RunConfig, encode, open_run, read_checkpoint, to_flat
from fqvae.runs.checkpoint import check_fits
from fqvae.runs.config import differences
from fqvae.runs.data import check_reopens, check_same, named, open_data, sized
from fqvae.runs.names import CHECKPOINT, CONFIG, CURVES, PICTURE
from fqvae.runs.picture import write_reconstructions
from fqvae.signals import handlers_restored
from fqvae.training.board import Board, BoardPictures
from fqvae.training.callbacks import Checkpoints, SafeCheckpointIO, StepBar
from fqvae.training.fast import FastMode, choose_fast
from fqvae.training.loggers import CsvFile, WandbRun
from fqvae.training.module import Training
from fqvae.training.notes import Notes

Device = Literal["auto", "cpu", "cuda"]
LoggerName = Literal["tensorboard", "wandb"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    step: the steps it has taken. finished: whether these are all, and no signal has ended it.
    losses: its last ones, and once it is finished the reconstruction error on held-out images ("held_out").
    signal: the one that has ended it, SIGINT for Ctrl-C; None if none has.
    """

    folder: Path
    step: int
    finished: bool
    losses: dict[str, float]
    signal: Signals | None = None


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    device: Device = "auto",
    fast: FastMode = "auto",
    logger: LoggerName = "tensorboard",
    dataset: ImageDataset | None = None,
) -> Outcome:
    """Train, in `folder`: last.ckpt, config.yaml, metrics.csv, TensorBoard's events, reconstructions.png.

    Under torchrun it runs on all of its processes, each with its share of every batch. Ctrl-C, SIGTERM and
    SIGHUP, sent to any of them, end the run with a checkpoint after the step that is being taken.

    Args:
        config: the run.
        folder: a new or empty one; with `resume` the one of the run to go on with.
        resume: go on at the folder's checkpoint, whose configuration must be this one.
        device: "auto" is CUDA where there is one.
        fast: "on": channels-last convolutions, bfloat16 where the processor has instructions for it, and
            torch.compile but for the light network on a CPU. "auto": that on a GPU; on a CPU channels-last
            alone, so that runs repeat each other bit for bit. "off": none of them.
        logger: "wandb" hands the metrics to Weights & Biases, besides TensorBoard.
        dataset: opened already; by default the one that the configuration names. If it has a method `reopen`
            (see `ImageDataset`), later commands open it again.

    Raises:
        FileExistsError: a folder in use, without `resume`, or by a run that is going on.
        FileNotFoundError, NotADirectoryError: nothing to resume.
        CheckpointError: a damaged checkpoint, or one of another configuration.
        ValueError: a batch that does not fit the set or the processes; a device that is not there; a logger
            whose package is not installed.
        NonFiniteError: a loss that is NaN or infinite; the last checkpoint before it is kept.
        OSError: a folder or file that cannot be written.
    """
    if device not in get_args(Device):
        raise ValueError(f"device must be one of {get_args(Device)}, but was {device!r}")
    if logger not in get_args(LoggerName):
        raise ValueError(f"logger must be one of {get_args(LoggerName)}, but was {logger!r}")
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
        check_reopens(trained_on, config.data)
        dataset = open_data(config.data)
    check_same(trained_on, dataset)
    config = replace(config, data=sized(config.data, dataset))
    parts = split(dataset)
    module = Training(config, dataset, parts.train)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    module.use(choose_fast(fast, config.model.network, cuda))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    module.batches(rank, processes)  # checks that they fit, before anything is written

    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    # Each loss reaches only part of the weights, so DDP must expect unused parameters.
    unused = module.discriminator is not None or config.model.network.is_own
    distributed = DDPStrategy(find_unused_parameters=unused)
    bar = sys.stderr.isatty()
    held_out = parts.valid[:1024]
    board = Board(folder, name="", version="", purge_step=start + 1)
    wandb = [WandbRun(folder, to_flat(config))] if logger == "wandb" else []
    pictures = BoardPictures(board, dataset, held_out, config.steps)
    checkpoints = Checkpoints(folder / CHECKPOINT, lambda step: pictures.write(module.autoencoder, step))
    notes = Notes(bar)
    told = [notes] if rank == 0 else []
    with _quiet(), _claimed(folder, config, resume) if rank == 0 else contextlib.nullcontext():
        trainer = Trainer(
            accelerator="gpu" if cuda else "cpu",
            devices=local,
            num_nodes=processes // local,
            strategy=distributed if processes > 1 else "auto",
            precision="bf16-mixed" if module.fast.bfloat16 else "32-true",
            max_epochs=1,
            logger=[CsvFile(folder / CURVES, start), board, *wandb],
            callbacks=[checkpoints, *told, *([StepBar(refresh_rate=10)] if bar else [])],
            plugins=[SafeCheckpointIO()],
            enable_progress_bar=bar,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        if start < config.steps:
            _fit(trainer, module, folder, resume)

    step = max(module.step, start)
    finished = step == config.steps and checkpoints.signal is None
    losses = dict(module.last_losses)
    if finished and rank == 0:
        run = open_run(folder, device="cuda" if cuda else "cpu", dataset=dataset)
        if notes.told:
            print(f"measuring on {len(held_out):,} held-out images", file=sys.stderr, flush=True)
        losses["held_out"] = encode(run, held_out, progress=bar).error
        write_reconstructions(run, held_out[:16], folder / PICTURE)
    return Outcome(folder, step, finished, losses, checkpoints.signal)


def _resumed(folder: Path, config: RunConfig) -> Checkpoint:
    """The checkpoint at which a run goes on. Raises CheckpointError if its configuration is another."""
    checkpoint = read_checkpoint(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a checkpoint; to go on with a run, name its folder")
    if different := differences(config, checkpoint.config):
        raise CheckpointError(f"{checkpoint.path} belongs to another configuration: {', '.join(different)}")
    check_fits(checkpoint)
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
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    try:
        with handlers_restored():
            trainer.fit(module, ckpt_path=folder / CHECKPOINT if resume else None)
        if trainer.world_size > 1 and not joined:
            # A process that ends while another still uses the group makes that one abort.
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)  # a full disk is reported without a file's name
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's messages about itself and warnings about its internals."""
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
