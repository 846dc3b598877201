"""The entropy term of a quantizer's loss: each posterior sharp, all of them together spread out."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fqvae_kernels._quantizer import precision
from fqvae_kernels._quantizer.precision import Factor
from fqvae_kernels.reference import distance_logits

# How many weights of codes are in memory at once.
_CHUNK = 2**20


def entropy_term(
    z: Tensor, codebook: Tensor, factor: Factor | None, kl: Tensor, counted: Tensor, latents: int
) -> Tensor:
    """mean H(q) - H(mean q), 0-d, nats: minus the information that a latent's index has about the row.

    q is the posterior of a scalar. The first mean is over all rows that are counted, the second over those of
    each latent, whose entropies are averaged in proportion to their rows. It lies between -ln K and 0, and is
    0 without a row. This is the entropy loss of lookup-free quantization (Yu et al., ICLR 2024, arXiv
    2310.05737) with codes that are learned.

    z: any shape, its last dimension the latents, or latents = 1. codebook: (K,) or (latents, K). factor: of
    distances, as for `draw_codes`. kl: of z, KL(q || uniform) = ln K - H(q). counted: the rows that enter,
    bool, the shape of z; their z and codes must be finite.
    """
    mean_entropy = torch.where(counted, math.log(codebook.shape[-1]) - kl, 0).sum() / counted.sum().clamp(
        min=1
    )
    rows = counted.reshape(-1, latents)
    values = z.to(kl.dtype) if factor is None else precision.scaled_z(z, factor, kl.dtype)
    values = torch.where(rows, values.reshape(rows.shape), 0)
    book = codebook.to(kl.dtype) if factor is None else precision.scaled_codebook(codebook, factor, kl.dtype)
    # A codebook that is not finite has no row that counts.
    book = torch.where(book.detach().isfinite().all(-1, keepdim=True), book, 0)
    in_latent = rows.sum(0)
    mean = _posterior_sums(values, book, rows) / in_latent.clamp(min=1).unsqueeze(-1)
    # x ln x, whose derivative at 0 is no number.
    entropy = -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum(-1)
    return mean_entropy - (in_latent * entropy).sum() / in_latent.sum().clamp(min=1)


def _posterior_sums(z: Tensor, codebook: Tensor, counted: Tensor) -> Tensor:
    """The sum of the posteriors of z (rows, latents) that are counted, (latents, K).

    Rows go by in chunks, whose weights a backward pass computes again. Under torch.compile and torch.func,
    which know no such loop, all weights may be in memory at once.
    """
    # This comes first: a compiled program has no number of rows.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return _posterior_sum(z, codebook, counted)
    length = max(1, _CHUNK // max(1, z.shape[1] * codebook.shape[-1]))
    if len(z) <= length:
        return _posterior_sum(z, codebook, counted)
    sums = [
        checkpoint(
            _posterior_sum,
            z[start : start + length],
            codebook,
            counted[start : start + length],
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, len(z), length)
    ]
    return torch.stack(sums).sum(0)


def _posterior_sum(z: Tensor, codebook: Tensor, counted: Tensor) -> Tensor:
    posterior = distance_logits(z, codebook).softmax(-1)
    return torch.where(counted.unsqueeze(-1), posterior, 0).sum(0)
