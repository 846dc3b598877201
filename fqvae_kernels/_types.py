"""What the public functions return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GumbelQuantized(NamedTuple):
    """What `gumbel_quantize` and `gumbel_quantize_logits` return.

    The shape is that of z, of logits without their last dimension; the dtype is that of z or logits.
    quantized: shape and dtype; where codes are vectors, one more dimension for their values. indices: shape,
    int64. kl: shape, float32 (float64 for float64), nats. weights: (*shape, K) in the dtype. kl and weights
    are None if they were not asked for.
    """

    quantized: Tensor
    indices: Tensor
    kl: Tensor | None
    weights: Tensor | None


class NearestQuantized(NamedTuple):
    """What `nearest_quantize` returns: quantized (shape and dtype of z) and indices (shape of z, int64)."""

    quantized: Tensor
    indices: Tensor
