"""The tuples that pass between the public functions, autograd and the backends."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GumbelQuantized(NamedTuple):
    """What `gumbel_quantize` and `gumbel_quantize_logits` return.

    quantized: shape of z, dtype of z. indices: shape of z, int64. kl: shape of z, float32 (float64 for
    float64). weights: (*z.shape, K) in the dtype of z, or None if they were not asked for.
    """

    quantized: Tensor
    indices: Tensor
    kl: Tensor
    weights: Tensor | None


class NearestQuantized(NamedTuple):
    """What `nearest_quantize` returns: quantized (shape and dtype of z) and indices (shape of z, int64)."""

    quantized: Tensor
    indices: Tensor


class GumbelCall(NamedTuple):
    """What a backend is told about one Gumbel pass besides its input and codebook.

    The same tuple goes to the forward and to the backward pass, so both draw the same noise.
    """

    is_logits: bool
    hard: bool
    want_weights: bool
    row_offset: int
    seed: int | Tensor
    temperature: float | Tensor
    only_input: bool = False  # will a backward pass be asked for the input's gradient alone?
