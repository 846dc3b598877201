"""What is told of a training on standard error: how far it has come, and how long the whole will take."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from fqvae.training.module import Training

EVERY = 30.0  # seconds between two lines
FIRST = 10.0  # seconds until the whole is estimated
SHORT = 60.0  # seconds that a run has to take for an estimate


class Notes(Callback):
    """An estimate of the whole after some seconds; without a progress bar also a line every half minute.

    bar: whether a progress bar is shown, which tells the rest.
    told: how many of the lines that come every half minute there were.
    """

    def __init__(self, bar: bool) -> None:
        self._bar = bar
        self._estimated = False
        self._began: tuple[float, int] | None = None  # the time and the step
        self._last = (0.0, 0)
        self.told = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of a temperature that the estimator is not made for."""
        assert isinstance(pl_module, Training)
        config = pl_module.config
        last = pl_module.temperature(config.steps - 1)
        if config.model.latent.estimator == "reinmax" and last < 0.99:
            self._say(
                f"the gradient of reinmax is right at temperature 1, and here it falls to {last:.2f}: "
                "temperature_steps=1000000000 holds it at 1"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Tell what there is to tell."""
        assert isinstance(pl_module, Training)
        now, step, steps = time.monotonic(), pl_module.step, pl_module.config.steps
        if self._began is None:  # the first step also prepares the rest: it is not timed
            self._began = self._last = (now, step)
            return
        if not self._estimated and now - self._began[0] >= FIRST:
            self._estimated = True
            seconds = _pace(self._began, (now, step))
            if seconds * (steps - step) >= SHORT:
                whole = duration(seconds * steps)
                self._say(f"the whole takes about {whole}: {steps:,} steps of {seconds:.2g} s")
        if not self._bar and now - self._last[0] >= EVERY and step < steps:
            seconds = _pace(self._last, (now, step))
            self._last = (now, step)
            self.told += 1
            losses = ", ".join(f"{name} {value:.4g}" for name, value in pl_module.last_losses.items())
            images = pl_module.config.batch_size / seconds
            self._say(
                f"step {step:,} of {steps:,}: {losses}; {images:,.0f} images/s, "
                f"{duration(seconds * (steps - step))} left"
            )

    def _say(self, line: str) -> None:
        if self._bar:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: "50 s", "45 min", "7 hours", "20 days"."""
    for size, name, most in ((1, "s", 120), (60, "min", 120), (3600, "hours", 48)):
        if seconds < size * most:
            return f"{max(1, round(seconds / size))} {name}"
    return f"{round(seconds / 86_400):,} days"


def _pace(begin: tuple[float, int], end: tuple[float, int]) -> float:
    """Seconds a step."""
    return (end[0] - begin[0]) / (end[1] - begin[1])
