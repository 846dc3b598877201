"""Plain PyTorch as a backend: serves every device and dtype, and PyTorch itself differentiates it."""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae_kernels import reference
from fqvae_kernels._call import Call, Outputs

name = "reference"
devices = None
differentiable = True


def unavailable_reason(device: torch.device | None) -> str | None:
    """None: it always serves."""
    return None


def forward(input: Tensor, codebook: Tensor, call: Call, stats: Tensor | None) -> Outputs:
    """See `fqvae_kernels.backends.Backend`; stats are left alone, autograd keeps what it needs."""
    return reference.quantize(input, codebook, call)


def gumbel_noise(
    seed: int | Tensor, rows: int, codes: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """See `fqvae_kernels.backends.Backend`."""
    return reference.gumbel_noise(seed, rows, codes, row_offset=row_offset, device=device, dtype=dtype)
