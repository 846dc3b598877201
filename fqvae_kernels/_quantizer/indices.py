"""Checks of indices that a user gives, -1 among them: the index of a row that was masked."""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae_kernels._quantizer.capture import happens_once


def check_integers(name: str, values: Tensor) -> None:
    """A tensor of int32 or int64."""
    if not isinstance(values, Tensor) or values.dtype not in (torch.int32, torch.int64):
        was = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a torch.int64 or torch.int32 tensor, but was {was}")


def check_range(name: str, values: Tensor, size: int) -> None:
    """-1 or below size, where that can be seen without waiting: in eager tensors on the CPU."""
    if not happens_once(values) or values.device.type != "cpu" or values.numel() == 0:
        return
    low, high = (int(end) for end in values.aminmax())
    if low < -1 or high >= size:
        raise ValueError(
            f"{name} must be in [0, {size}), or -1 where masked, but held {low if low < -1 else high}"
        )
