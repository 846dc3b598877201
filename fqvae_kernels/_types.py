"""What the public functions return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GumbelQuantized(NamedTuple):
    """What `gumbel_quantize` and `gumbel_quantize_logits` return.

    quantized: shape of z, dtype of z; where codes are vectors, one more dimension for their values. indices:
    shape of z, int64. kl: shape of z, float32 (float64 for float64). weights: (*z.shape, K) in the dtype of
    z. kl and weights are None if they were not asked for.
    """

    quantized: Tensor
    indices: Tensor
    kl: Tensor | None
    weights: Tensor | None


class NearestQuantized(NamedTuple):
    """What `nearest_quantize` returns: quantized (shape and dtype of z) and indices (shape of z, int64)."""

    quantized: Tensor
    indices: Tensor
