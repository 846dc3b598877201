"""Plain PyTorch as a backend: serves every device and dtype, and PyTorch itself differentiates it."""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae_kernels import reference
from fqvae_kernels._types import GumbelCall

name = "reference"
differentiable = True


def unavailable_reason(device: torch.device | None) -> str | None:
    """None: it always serves."""
    return None


def gumbel_forward(
    input: Tensor, codebook: Tensor, call: GumbelCall, stats: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """See `fqvae_kernels.backends.Backend`; stats are left alone, autograd keeps what it needs."""
    quantize = reference.gumbel_quantize_logits if call.is_logits else reference.gumbel_quantize
    return quantize(
        input,
        codebook,
        seed=call.seed,
        temperature=call.temperature,
        hard=call.hard,
        row_offset=call.row_offset,
        return_weights=call.want_weights,
    )


def nearest_forward(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """See `fqvae_kernels.backends.Backend`."""
    return reference.nearest_quantize(z, codebook)


def gumbel_noise(
    seed: int | Tensor, rows: int, codes: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """See `fqvae_kernels.backends.Backend`."""
    return reference.gumbel_noise(seed, rows, codes, row_offset=row_offset, device=device, dtype=dtype)
