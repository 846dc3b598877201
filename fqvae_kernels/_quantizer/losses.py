"""The terms of a quantizer's loss. Their means are over the rows that are finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def weighted_losses(
    z: Tensor,
    quantized: Tensor,
    kl: Tensor | None,
    codes: Callable[[], Tensor],
    entropy: Callable[[Tensor], Tensor],
    *,
    kl_weight: float,
    commitment_weight: float,
    codebook_weight: float,
    entropy_weight: float,
) -> dict[str, Tensor]:
    """The terms whose weight is not 0, by name, each multiplied by its weight; the others cost nothing.

    codes: gives the codes at the indices, differentiable in the codebook. entropy: gives the entropy term for
    the rows that count, bool, the shape of z.
    """
    if not any((kl_weight, commitment_weight, codebook_weight, entropy_weight)):
        return {}
    dtype = compute_dtype(z)
    finite = ~quantized.isnan()
    # At least 1: with no such row every term is 0, and so are its gradients.
    rows = finite.sum().clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(finite, values, 0).sum(dtype=dtype) / rows

    def mean_square(left: Tensor, right: Tensor) -> Tensor:
        # NaN is replaced before the square, whose derivative would carry it on.
        return torch.where(finite, left.to(dtype) - right.to(dtype), 0).square().sum() / rows

    losses: dict[str, Tensor] = {}
    if kl_weight != 0 and kl is not None:
        losses["kl"] = kl_weight * mean(kl)
    if commitment_weight != 0:
        losses["commitment"] = commitment_weight * mean_square(quantized.detach(), z)
    if codebook_weight != 0:
        losses["codebook"] = codebook_weight * mean_square(codes(), z.detach())
    if entropy_weight != 0:
        losses["entropy"] = entropy_weight * entropy(finite)
    return losses


def total_loss(losses: dict[str, Tensor], z: Tensor) -> Tensor:
    """The sum of the terms, 0-d in the compute dtype; 0 without any."""
    total = torch.zeros((), dtype=compute_dtype(z), device=z.device)
    for loss in losses.values():
        total = total + loss
    return total


def compute_dtype(z: Tensor) -> torch.dtype:
    """float64 for float64 z, else float32."""
    return torch.float64 if z.dtype == torch.float64 else torch.float32
