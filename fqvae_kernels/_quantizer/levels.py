"""Codebooks of different sizes in one (L, K), K the largest. What lies beyond a latent's own is not read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fqvae_kernels import _arguments

_DEFAULT_SIZE = 64


def check_sizes(
    codebook_size: int | None, num_codebooks: int | None, levels: Sequence[int] | None
) -> tuple[int, int, tuple[int, ...] | None]:
    """The size of the (largest) codebook, how many there are, and the levels, None for one codebook."""
    if levels is None:
        size = _DEFAULT_SIZE if codebook_size is None else codebook_size
        return size, 1 if num_codebooks is None else num_codebooks, None
    for name, value in (("codebook_size", codebook_size), ("num_codebooks", num_codebooks)):
        if value is not None:
            raise ValueError(f"{name} must not be given with levels, which says it, but was {value!r}")
    if isinstance(levels, str) or not isinstance(levels, Sequence):
        raise TypeError(
            f"levels must be a sequence of ints, the codes of each latent, but was {levels!r} "
            f"({type(levels).__name__})"
        )
    if len(levels) == 0:
        raise ValueError("levels must have a number of codes for at least one latent, but was empty")
    sizes = tuple(_arguments.check_count("levels", level, 1, _arguments.MOST_CODES) for level in levels)
    return max(sizes), len(sizes), sizes if len(sizes) > 1 else None


def code_places(levels: tuple[int, ...]) -> Tensor:
    """(L, K), int64, on the CPU: each place itself; beyond the latent's level that of its last code."""
    last = torch.tensor(levels, dtype=torch.int64, device="cpu") - 1
    return torch.arange(max(levels), device="cpu").minimum(last.unsqueeze(-1))


def own_codes(codes: Tensor, places: Tensor) -> Tensor:
    """The codes (L, K), the last code of each latent again beyond its level: a place that no z is nearest to,
    since of equal codes the first is taken. places: `code_places`."""
    return codes.gather(-1, places)


def initial(codes: Tensor, places: Tensor, sort: bool) -> Tensor:
    """Codes to start from: with 0 beyond a latent's level, or each latent's own in increasing order."""
    if not sort:
        return codes.masked_fill(beyond(places), 0)
    return own_codes(codes.masked_fill(beyond(places), math.inf).sort(-1).values, places)


def linspace(levels: tuple[int, ...]) -> Tensor:
    """(L, K): each latent's codes evenly from -1/2 to 1/2."""
    rows = [torch.linspace(-0.5, 0.5, level, device="cpu") for level in levels]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def beyond(places: Tensor) -> Tensor:
    """(L, K), bool: whether a place is beyond its latent's level."""
    return places < torch.arange(places.shape[-1], device=places.device)
