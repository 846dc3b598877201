"""A temperature that falls, or rises, over the steps of a training."""

from __future__ import annotations

<<<<<<<< HEAD:fqvae_kernels/_quantizer/schedule.py
import math
========
from collections.abc import Sequence
from typing import NamedTuple
>>>>>>>> vector:fqvae_kernels/_quantizer/decay.py

import torch
from torch import Tensor

from fqvae_kernels import _arguments

<<<<<<<< HEAD:fqvae_kernels/_quantizer/schedule.py
_SHAPES = ("exponential", "linear", "cosine")


class TemperatureSchedule(torch.nn.Module):
    """A temperature that goes from `start` to `end` in so many steps, and stays there.

    Give it as `ScalarQuantizer(temperature=TemperatureSchedule(1.0, 0.1, 10_000))` and call `step()` after
    each step of the optimizer; several quantizers may share one. Calls of a quantizer do not advance it, so
    that gradient accumulation, checkpointing and several calls in a step see one temperature. The number of
    steps is a buffer, `count`, 0-d, int64: `state_dict` holds it, and programs of torch.compile, torch.export
    and CUDA graphs read it anew at every call.

    With t = min(count / steps, 1) the temperature is

        "exponential"  start**(1 - t) * end**t
        "linear"       start + t (end - start)
        "cosine"       end + (start - end) (1 + cos(pi t)) / 2

    Args:
        start, end: greater than 0 and finite.
        steps: at least 1.
        shape: "exponential", "linear" or "cosine".

    Raises:
        TypeError, ValueError: an argument of the wrong type or value, which the message names.
    """

    count: Tensor

    def __init__(self, start: float, end: float, steps: int, shape: str = "exponential") -> None:
        super().__init__()
        self.start, self.end = _check("start", start), _check("end", end)
        self.steps = _arguments.check_count("steps", steps, 1)
        if shape not in _SHAPES:
            raise ValueError(f"shape must be one of {', '.join(map(repr, _SHAPES))}, but was {shape!r}")
        self.shape = shape
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def step(self, steps: int = 1) -> None:
        """Go on by so many steps, at least 0."""
        self.count += _arguments.check_count("steps", steps, 0)

    def forward(self) -> Tensor:
        """The temperature now, 0-d, float32, on the buffer's device."""
        t = (self.count.float() / self.steps).clamp(max=1)
        if self.shape == "exponential":
            return (math.log(self.start) * (1 - t) + math.log(self.end) * t).exp()
        # Weights that add up to 1, so that both ends are exact.
        done = t if self.shape == "linear" else (1 - torch.cos(math.pi * t)) / 2
        return self.start * (1 - done) + self.end * done

    def extra_repr(self) -> str:
        """Its arguments."""
        return f"{self.start:g}, {self.end:g}, {self.steps}, shape={self.shape!r}"
========

class Decay(NamedTuple):
    """max(start * decay**step, end): that of wav2vec 2.0."""

    start: float
    end: float
    decay: float

    def at(self, step: Tensor) -> Tensor:
        """The temperature at a step, a 0-d int64 tensor: 0-d float64 on its device."""
        return (self.start * torch.pow(self.decay, step.double())).clamp(min=self.end)


def check_decay(values: Sequence[float]) -> Decay:
    """start >= end > 0, and a decay in (0, 1]."""
    if isinstance(values, str) or len(values) != 3:
        raise ValueError(f"temperature as a schedule must be (start, end, decay), but was {values!r}")
    start, end = (
        _temperature(f"temperature's {name}", value)
        for name, value in zip(("start", "end"), values[:2], strict=True)
    )
    factor = values[2]
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise ValueError(f"temperature's decay must be greater than 0 and at most 1, but was {factor!r}")
    if start < end:
        raise ValueError(f"temperature's start must be at least its end ({end}), but was {start}")
    return Decay(start, end, float(factor))
>>>>>>>> vector:fqvae_kernels/_quantizer/decay.py


def _check(name: str, value: float) -> float:
    if isinstance(value, Tensor):
        raise TypeError(f"{name} must be a float, but was a tensor")
    return float(_arguments.check_temperature(value, torch.device("cpu"), name=name))
