"""How a code is taken for each scalar: drawn, with the gradient of an estimator, or the nearest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fqvae_kernels import _arguments
from fqvae_kernels._call import Tally
from fqvae_kernels._draws import lies_as
from fqvae_kernels._quantizer import precision
from fqvae_kernels._quantizer.codebook import codes_at
from fqvae_kernels._quantizer.losses import compute_dtype
from fqvae_kernels._quantizer.precision import Factor
from fqvae_kernels._tensors import values_behind
from fqvae_kernels.functional import gumbel_quantize, nearest_counted, nearest_quantize, posterior_kl


class Taken(NamedTuple):
    """Codes taken for z, shaped as the fields of `QuantizerOutput`."""

    quantized: Tensor
    indices: Tensor
    kl: Tensor | None
    weights: Tensor | None
    counted: bool = False  # the usage has them already


def draw_codes(
    z: Tensor,
    codebook: Tensor,
    factor: Factor | None,
    *,
    estimator: str,
    temperature: float | Tensor,
    hard: bool,
    seed: int | Tensor | None,
    row_offset: int,
    return_weights: bool,
    return_kl: bool,
    backend: str | None,
) -> Taken:
    """A code drawn by a sampling estimator, at distances that the factor scales; None leaves them alone."""
    scaled = (z, codebook) if factor is None else _scaled(z, codebook, factor)
    drawn = gumbel_quantize(
        *scaled,
        temperature=temperature,
        hard=hard and estimator == "gumbel",
        seed=seed,
        row_offset=row_offset,
        return_weights=return_weights,
        return_kl=return_kl,
        estimator=estimator,
        backend=backend,
    )
    if factor is None:
        return Taken(drawn.quantized, drawn.indices, drawn.kl, drawn.weights)
    quantized = precision.unscaled(drawn.quantized, factor).to(z.dtype)
    if hard or estimator != "gumbel":
        quantized = precision.exactly(codes_at(codebook, drawn.indices), quantized)
    weights = None if drawn.weights is None else drawn.weights.to(z.dtype)
    return Taken(quantized, drawn.indices, drawn.kl, weights)


def nearest_codes(
    z: Tensor,
    codebook: Tensor,
    factor: Factor | None,
    *,
    return_weights: bool,
    return_kl: bool,
    backend: str | None,
    tally: Callable[[], Tally | None] | None = None,
) -> Taken:
    """The nearest code, which no factor changes; the gradient goes straight to z.

    tally: where the codes may be counted within the pass.
    """
    counted = None if tally is None else nearest_counted(z, codebook, tally, backend=backend)
    quantized, indices = counted or nearest_quantize(z, codebook, backend=backend)
    kl = _kl(z, codebook, factor, backend) if return_kl else None
    weights = _one_hot(indices, quantized, codebook.shape[-1]) if return_weights else None
    return Taken(quantized, indices, kl, weights, counted is not None)


def check_unused(
    z: Tensor, temperature: float | Tensor | None, seed: int | Tensor | None, row_offset: int | None
) -> None:
    """Name what is wrong with arguments that change nothing here, as where they do."""
    if temperature is not None:
        _arguments.check_temperature(temperature, z.device, compute_dtype(z), read=False)
        if isinstance(temperature, Tensor):
            for value in values_behind(temperature):
                _arguments.check_temperature_value(value, compute_dtype(z))
    if seed is not None:
        _arguments.check_seed(seed, z.device, read=False)
    if row_offset is not None:
        _arguments.check_count("row_offset", row_offset, 0)


def _kl(z: Tensor, codebook: Tensor, factor: Factor | None, backend: str | None) -> Tensor | None:
    """KL of the posterior, (*z.shape,), in a pass that computes nothing else."""
    scaled_z, scaled_book = (z, codebook) if factor is None else _scaled(z, codebook, factor)
    return posterior_kl(scaled_z, scaled_book, backend=backend)


def _scaled(z: Tensor, codebook: Tensor, factor: Factor) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(z)
    scaled = lies_as(precision.scaled_z(z, factor, dtype), z)
    return scaled, precision.scaled_codebook(codebook, factor, dtype)


def _one_hot(indices: Tensor, quantized: Tensor, codes: int) -> Tensor:
    """(*indices.shape, codes) in quantized's dtype, NaN in the rows where quantized is."""
    hot = indices.unsqueeze(-1) == torch.arange(codes, device=indices.device)
    return torch.where(quantized.isnan().unsqueeze(-1), math.nan, hot.to(quantized.dtype))
