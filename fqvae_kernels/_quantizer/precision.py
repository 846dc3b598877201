"""Precision: distances s (z - m)**2, made by a factor sqrt(s) on z and on the codes before the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Factor = float | Tensor


def check_precision(precision: float | Sequence[float] | Tensor, codebooks: int) -> float | Tensor:
    """The precision as a float, or as a tensor (codebooks,) where there are several values."""
    wanted = "a float, or a tensor or sequence of num_codebooks floats"
    if isinstance(precision, bool) or not isinstance(precision, int | float | Sequence | Tensor):
        raise TypeError(f"precision must be {wanted}, but was {precision!r} ({type(precision).__name__})")
    try:
        values = torch.as_tensor(precision, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"precision must be {wanted}, but was {precision!r}") from None
    if values.dim() > 1 or (values.dim() == 1 and values.shape[0] != codebooks):
        raise ValueError(f"precision must be {wanted} ({codebooks}), but had shape {tuple(values.shape)}")
    wrong = values[~(values.isfinite() & (values > 0))]
    if wrong.numel() > 0:
        raise ValueError(f"precision must be finite and greater than 0, but was {float(wrong[0])}")
    if bool((values == values.reshape(-1)[0]).all()):
        return float(values.reshape(-1)[0])
    return values


def scaled_z(z: Tensor, factor: Factor, dtype: torch.dtype) -> Tensor:
    """z times the factor, in dtype. Rows that are not finite are NaN and give the factor no gradient."""
    finite = z.isfinite()
    scaled = torch.where(finite, z, 0).to(dtype) * factor
    # A finite z stays finite, whatever the factor.
    largest = torch.finfo(dtype).max
    return torch.where(finite, scaled.clamp(-largest, largest), math.nan)


def scaled_codebook(codebook: Tensor, factor: Factor, dtype: torch.dtype) -> Tensor:
    """The codebook times the factor, in dtype. (K,) with one factor, (L, K) with one or with (L,)."""
    if isinstance(factor, Tensor) and factor.dim() == 1:
        factor = factor.unsqueeze(-1)
    return codebook.to(dtype) * factor


def unscaled(quantized: Tensor, factor: Factor) -> Tensor:
    """What the kernel gives for scaled input, in the units of z again. NaN gives the factor no gradient."""
    known = ~quantized.isnan()
    values = torch.where(known, quantized, 0) / factor
    return torch.where(known, values, math.nan)


def exactly(codes: Tensor, quantized: Tensor) -> Tensor:
    """The codes to the last bit, with the gradient of quantized, which rounding moved; NaN where it is."""
    unchanged = codes.detach().to(quantized.dtype) + (quantized - quantized.detach())
    return torch.where(quantized.isnan(), quantized, unchanged)
