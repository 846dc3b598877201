"""`gumbel_softmax` in the place of PyTorch's, for code that cannot be edited."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels._arguments import DTYPES
from fqvae_kernels.functional import gumbel_softmax

__all__ = ["patch", "patched", "unpatch"]

_theirs = torch.nn.functional.gumbel_softmax


@functools.wraps(_theirs)
def _ours(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Any:
    if not isinstance(logits, Tensor) or logits.dtype not in DTYPES or logits.layout != torch.strided:
        return _theirs(logits, tau, hard, eps, dim)
    return gumbel_softmax(logits, tau, hard, dim)


def patch() -> None:
    """Put `gumbel_softmax` in the place of `torch.nn.functional.gumbel_softmax`, until `unpatch`.

    Code that calls it by that name then takes one pass, and other samples for the same
    `torch.manual_seed`. A name bound before, as by ``from torch.nn.functional import gumbel_softmax``, keeps
    PyTorch's function. `eps`, which PyTorch ignores, is ignored. Tensors that `gumbel_softmax` does not take
    (another dtype, sparse) go to PyTorch's.
    """
    torch.nn.functional.gumbel_softmax = _ours


def unpatch() -> None:
    """Put PyTorch's function back."""
    torch.nn.functional.gumbel_softmax = _theirs


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """`patch` inside the block; afterwards it is as it was before, for every thread."""
    before = torch.nn.functional.gumbel_softmax
    patch()
    try:
        yield
    finally:
        torch.nn.functional.gumbel_softmax = before
