"""Checkpoints at intervals, and a clean end on a signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor

from fqvae.runs.checkpoint import read_plain, write_plain
from fqvae.signals import ENDING, listen, status_of
from fqvae.training.module import NonFiniteError, Training

_FORWARDED = 2.0  # seconds within which a second Ctrl-C is taken for torchrun's


class SafeCheckpointIO(CheckpointIO):
    """Writes Lightning's checkpoints whole or not at all, and only if all weights are finite."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises NonFiniteError before anything is written, OSError if it cannot be."""
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise NonFiniteError(f"step {checkpoint['fqvae']['step']}: {name} is not finite")
        write_plain(checkpoint, path)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises CheckpointError for a damaged file."""
        return read_plain(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)


class StepBar(TQDMProgressBar):
    """Progress over the whole run. Steps that were taken before it was resumed count as done."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The losses, without Lightning's number of a logger's folder."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def on_train_epoch_start(self, trainer: Trainer, *arguments: Any) -> None:
        """Begin at the run's step. There is only one epoch, so the bar is never reset."""
        module, bar = trainer.lightning_module, self.train_progress_bar
        assert isinstance(module, Training)
        bar.total, bar.initial, bar.n = module.config.steps, module.step, module.step
        bar.set_description("training")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Show the steps taken."""
        assert isinstance(pl_module, Training)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, pl_module.step - 1)


class Checkpoints(Callback):
    """Write the checkpoint at the start, at intervals, at the end, and on a signal, which ends the run.

    At intervals that is done between a step's losses and its gradients, so that what is written is known to
    have finite losses. The signals are SIGINT (Ctrl-C), SIGTERM and SIGHUP, sent to any process of the run. A
    second Ctrl-C ends the run at once, without a checkpoint.

    It leaves its handlers behind: train inside `fqvae.signals.handlers_restored`.

    written: called with the step when a checkpoint is written, but not on a signal, which may leave no time.
    signal: which one has ended the run; None if none has.
    """

    def __init__(self, path: Path, written: Callable[[int], object] = lambda step: None) -> None:
        self._path = path
        self._announce = written
        self._written: int | None = None
        self._received = 0
        self._since = 0.0
        self.signal: signal.Signals | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to listen."""
        assert isinstance(pl_module, Training)
        if pl_module.step > 0:  # resumed: this step's checkpoint exists already
            self._written = pl_module.step
        # In place of Lightning's handler of SIGTERM: that one ends the process with status 0 and writes no
        # checkpoint, and with several processes it waits for the others in the middle of whatever they do.
        listen((signal.SIGINT, *ENDING), self._on_signal)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Write at intervals, before the first of a step's gradients."""
        assert isinstance(pl_module, Training)
        if pl_module.step % pl_module.config.checkpoint_every == 0:
            self._write(trainer, pl_module.step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Write and stop at the end, or if asked to."""
        assert isinstance(pl_module, Training)
        received = self._received
        if trainer.world_size > 1:
            # All processes must agree, or the others would wait for the one that has stopped.
            number = torch.tensor(received, device=pl_module.device)
            received = int(trainer.strategy.reduce(number, reduce_op="max"))
        if received:
            self.signal = signal.Signals(received)
        if received or pl_module.step == pl_module.config.steps:
            self._write(trainer, pl_module.step)
        trainer.should_stop = trainer.should_stop or received > 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note a signal that came after the last step."""
        if self._received and self.signal is None:
            self.signal = signal.Signals(self._received)

    def _write(self, trainer: Trainer, step: int) -> None:
        if step != self._written:
            trainer.save_checkpoint(self._path)
            self._written = step
            if trainer.is_global_zero and not self._received:
                self._announce(step)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # A terminal sends Ctrl-C to torchrun and to its workers, and torchrun sends it to them once more.
        again = self._received == signal.SIGINT and under_torchrun() and now - self._since < _FORWARDED
        if self._received and number == signal.SIGINT and not again:
            raise SystemExit(status_of(number))  # Lightning turns a KeyboardInterrupt into status 1
        if not self._received:
            self._received, self._since = number, now


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
