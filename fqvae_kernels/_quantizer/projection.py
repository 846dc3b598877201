"""Linear projections to the latents and back. A position that is not finite stays alone: it is NaN, and gives
no gradient to the weights, which it would make NaN."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fqvae_kernels import _arguments


def check_dims(dim: int | None, num_latents: int | None, num_codebooks: int) -> tuple[int | None, int | None]:
    """dim and num_latents, which is num_codebooks where there are several; None without a projection."""
    if dim is None:
        if num_latents is not None:
            raise ValueError(
                f"num_latents must be None without dim, the size that is projected, but was {num_latents!r}"
            )
        return None, None
    dim = _arguments.check_count("dim", dim, 1)
    if num_latents is None:
        if num_codebooks == 1:
            raise ValueError("num_latents must be given with dim under a single codebook, but was None")
        return dim, num_codebooks
    num_latents = _arguments.check_count("num_latents", num_latents, 1)
    if num_codebooks not in (1, num_latents):
        raise ValueError(
            f"num_latents must be the number of codebooks ({num_codebooks}), but was {num_latents}"
        )
    return dim, num_latents


def project_in(linear: torch.nn.Linear, z: Tensor) -> Tensor:
    """(..., dim) to (..., num_latents)."""
    finite = z.isfinite().all(-1, keepdim=True)
    latents: Tensor = linear(torch.where(finite, z, 0))
    return latents.masked_fill(~finite, math.nan)


def project_out(linear: torch.nn.Linear, quantized: Tensor, counted: Tensor | None) -> Tensor:
    """(..., num_latents) to (..., dim), 0 where no latent of the position is counted.

    counted: bool, the shape of quantized, which is 0 where it is False; None: all are.
    """
    known = ~quantized.isnan().any(-1, keepdim=True)
    values: Tensor = linear(torch.where(known, quantized, 0)).masked_fill(~known, math.nan)
    return values if counted is None else values.masked_fill(~counted.any(-1, keepdim=True), 0)
