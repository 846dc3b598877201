"""Checkpoints at intervals, and a clean end on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor

from fqvae.runs.checkpoint import read_plain, write_plain
from fqvae.training.module import NonFiniteError, Training


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoints by way of a temporary name, and only of finite weights."""

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
    """The progress of the whole run, whose steps before it was resumed are done."""

    def on_train_epoch_start(self, trainer: Trainer, *arguments: Any) -> None:
        """Begin where the run is. There is one epoch: nothing to set back."""
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
    """Write the checkpoint at the start, at intervals, at the end, and on Ctrl-C, which ends the run.

    At intervals that is done between a step's losses and its gradients, so that what is written is known to
    have finite losses. A second Ctrl-C ends the run at once, without a checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: int | None = None
        self._interrupted = False
        self._handler: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to listen."""
        assert isinstance(pl_module, Training)
        if pl_module.step > 0:  # resumed: there it is already
            self._written = pl_module.step
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._on_interrupt)

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
        # All processes must agree, or the others would wait for the one that has stopped.
        stop = trainer.strategy.reduce_boolean_decision(self._interrupted, all=False)
        if stop or pl_module.step == pl_module.config.steps:
            self._write(trainer, pl_module.step)
        trainer.should_stop = trainer.should_stop or stop

    def _write(self, trainer: Trainer, step: int) -> None:
        if step != self._written:
            trainer.save_checkpoint(self._path)
            self._written = step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop listening."""
        self._stop_listening()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop listening."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise SystemExit(130)  # of a KeyboardInterrupt Lightning makes status 1
        self._interrupted = True
