"""Checks of a quantizer's own arguments. Every error names the argument, what it was and what it may be."""

from __future__ import annotations

import math

from torch import Tensor

from fqvae_kernels import _arguments


def check_float(name: str, value: float) -> float:
    """A number as a float, finite and at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a float, but was {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, but was {number}")
    return number


def check_z(z: Tensor) -> None:
    """A dense tensor of a dtype that the kernels take, checked before anything is done with it."""
    _arguments.check_floating("z", z)
