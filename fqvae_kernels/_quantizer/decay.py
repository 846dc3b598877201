"""A temperature that falls by a factor with every step, down to an end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fqvae_kernels import _arguments


class Schedule(NamedTuple):
    """max(start * decay**step, end): that of wav2vec 2.0."""

    start: float
    end: float
    decay: float

    def at(self, step: Tensor) -> Tensor:
        """The temperature at a step, a 0-d int64 tensor: 0-d float64 on its device."""
        # A power would be 0**0 at a decay that underflows; the logarithm of a decay is finite.
        falling = (step.double() * math.log(self.decay)).exp() * self.start
        return falling.clamp(min=self.end)


def check_schedule(values: Sequence[float]) -> Schedule:
    """start >= end > 0, and a decay in (0, 1]."""
    if isinstance(values, str) or len(values) != 3:
        raise ValueError(f"temperature as a schedule must be (start, end, decay), but was {values!r}")
    start, end = (
        _temperature(f"temperature's {name}", value)
        for name, value in zip(("start", "end"), values[:2], strict=True)
    )
    decay = values[2]
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay <= 1:
        raise ValueError(f"temperature's decay must be greater than 0 and at most 1, but was {decay!r}")
    if start < end:
        raise ValueError(f"temperature's start must be at least its end ({end}), but was {start}")
    return Schedule(start, end, float(decay))


def _temperature(name: str, value: float) -> float:
    if isinstance(value, Tensor):
        raise TypeError(f"{name} must be a float, but was a tensor")
    checked = _arguments.check_temperature(value, torch.device("cpu"), name=name)
    assert isinstance(checked, float)
    return checked
