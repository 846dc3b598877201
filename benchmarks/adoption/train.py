"""A training run of a case: what the table says of it, its time apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adoption.case import Case, Task


def seed_all(seed: int) -> None:
    """torch's generator, and NumPy's, by which wav2vec2 masks."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def stepper(case: Case, task: Task, seed: int) -> Callable[[float], Tensor]:
    """A function that trains a step at a progress of 0 to 1 and returns the task's loss."""
    task.model.train()
    optimizer = torch.optim.Adam(task.model.parameters(), case.learning_rate)
    generator = torch.Generator().manual_seed(seed)

    def step(progress: float) -> Tensor:
        batch = task.train[torch.randint(len(task.train), (case.batch_size,), generator=generator)]
        optimizer.zero_grad()
        loss, own = task.loss(batch, progress)
        (loss + own).backward()
        optimizer.step()
        return loss

    return step


def train(case: Case, kind: str, seed: int) -> dict[str, float]:
    """Train once.

    Returns `training`, the loss of the task, the mean of the last tenth of the steps; `held_out`, the same in
    eval() on data that were held out; and `codes`, those in use there.
    """
    seed_all(seed)
    task = case.make(kind)
    step = stepper(case, task, seed)
    losses = [step(number / case.steps).item() for number in range(case.steps)]
    task.model.eval()
    seed_all(seed)
    with torch.no_grad():
        held_out, codes = task.evaluate(task.test)
    return {
        "training": statistics.fmean(losses[-max(1, case.steps // 10) :]),
        "held_out": held_out,
        "codes": codes,
    }
