"""A temperature that falls, or rises, over the steps of a training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fqvae_kernels import _arguments

_SHAPES = ("exponential", "linear", "cosine")


class TemperatureSchedule(torch.nn.Module):
    """A temperature that goes from `start` to `end` in so many steps, and stays there.

    Give it as the `temperature` of a `ScalarQuantizer` or a `GumbelVectorQuantizer`, and call its `step()`
    after each step of the optimizer; several quantizers may share one. Calls of a quantizer do not advance
    it, so that gradient accumulation, checkpointing and several calls in a step see one temperature. The
    number of steps is a buffer, `count`, 0-d, int64: `state_dict` holds it, and programs of torch.compile,
    torch.export and CUDA graphs read it anew at every call.

    With t = min(count / steps, 1) the temperature is

        "exponential"  start**(1 - t) * end**t
        "linear"       start + t (end - start)
        "cosine"       end + (start - end) (1 + cos(pi t)) / 2

    With `decay` in the place of steps it is max(start * decay**count, end), the schedule of wav2vec 2.0
    (Baevski et al., NeurIPS 2020): `TemperatureSchedule(2.0, 0.5, decay=0.999995)` there. That is the
    exponential shape with steps = ln(end / start) / ln(decay), which need not be an integer.

    Args:
        start, end: greater than 0 and finite.
        steps: at least 1.
        shape: "exponential", "linear" or "cosine".
        decay: the factor of each step, between 0 and 1; end is then at most start.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value, which the message names.
    """

    count: Tensor

    def __init__(
        self,
        start: float,
        end: float,
        steps: int | None = None,
        shape: str = "exponential",
        *,
        decay: float | None = None,
    ) -> None:
        super().__init__()
        self.start, self.end = _check("start", start), _check("end", end)
        if shape not in _SHAPES:
            raise ValueError(f"shape must be one of {', '.join(map(repr, _SHAPES))}, but was {shape!r}")
        self.shape = shape
        self.decay = decay
        if (steps is None) == (decay is None):
            given = "neither was" if decay is None else "both were"
            raise TypeError(f"steps or decay must be given, one of them, but {given}")
        self.steps: float
        if decay is None:
            assert steps is not None
            self.steps = _arguments.check_count("steps", steps, 1)
        else:
            self.steps = _steps_of(decay, self.start, self.end, shape)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def reset_parameters(self) -> None:
        """Start anew, at `start`."""
        self.count.zero_()

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
        if self.decay is not None:
            return f"{self.start:g}, {self.end:g}, decay={self.decay}"
        return f"{self.start:g}, {self.end:g}, {self.steps}, shape={self.shape!r}"


def _check(name: str, value: float) -> float:
    if isinstance(value, Tensor):
        raise TypeError(f"{name} must be a float, but was a tensor")
    return float(_arguments.check_temperature(value, torch.device("cpu"), name=name))


def _steps_of(decay: float, start: float, end: float, shape: str) -> float:
    """In how many steps, not rounded, the decay leads from start to end."""
    if isinstance(decay, bool) or not isinstance(decay, int | float):
        raise TypeError(f"decay must be a float, but was {decay!r} ({type(decay).__name__})")
    if not 0 < decay < 1:
        raise ValueError(f"decay must be between 0 and 1, the factor of each step, but was {decay}")
    if shape != "exponential":
        raise ValueError(f"shape must be 'exponential' where decay is given, but was {shape!r}")
    if end > start:
        raise ValueError(f"end must be at most start ({start}) where decay is given, but was {end}")
    # Where both are the same, so is the temperature after any number of steps.
    return (math.log(start) - math.log(end)) / -math.log(decay) or 1.0
