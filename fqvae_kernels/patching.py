"""`gumbel_softmax` in the place of PyTorch's, for code that cannot be edited."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels._arguments import DTYPES, MOST_CODES
from fqvae_kernels.functional import gumbel_softmax

__all__ = ["patch", "patched", "unpatch"]

_theirs = torch.nn.functional.gumbel_softmax


@functools.wraps(_theirs)
def _ours(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Any:
    if _serves(logits, tau, dim):
        return gumbel_softmax(logits, tau, hard, dim)
    return _theirs(logits, tau, hard, eps, dim)


def _serves(logits: Any, tau: Any, dim: int) -> bool:
    """Whether `gumbel_softmax` takes them."""
    if not isinstance(logits, Tensor) or logits.dtype not in DTYPES or logits.layout != torch.strided:
        return False
    if isinstance(tau, Tensor) and (tau.dim() != 0 or tau.dtype not in DTYPES or tau.device != logits.device):
        return False
    if torch.jit.is_tracing():  # type: ignore[no-untyped-call,attr-defined]  # it would keep one seed for ever
        return False
    return not -logits.dim() <= dim < logits.dim() or logits.shape[dim] <= MOST_CODES


def patch() -> None:
    """Put `gumbel_softmax` in the place of `torch.nn.functional.gumbel_softmax`, until `unpatch`.

    Code that calls it by that name then takes one pass, and other samples for the same
    `torch.manual_seed`. A name bound before, as by ``from torch.nn.functional import gumbel_softmax``, keeps
    PyTorch's function. `eps`, which PyTorch ignores, is ignored. What `gumbel_softmax` does not take goes to
    PyTorch's: logits of another dtype or layout, or with more than 2**24 places; a tau that is a tensor of
    some dimensions, of integers or on another device; and calls that torch.jit.trace records.
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
