"""How vectors are taken for logits without drawing, and the losses of a `GumbelVectorQuantizer`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fqvae_kernels import _vectors
from fqvae_kernels._quantizer.estimator import Taken
from fqvae_kernels._quantizer.losses import compute_dtype
from fqvae_kernels.functional import posterior_kl


def best_codes(
    logits: Tensor, embedding: Tensor, *, return_weights: bool, return_kl: bool, backend: str | None
) -> Taken:
    """The code of the largest logit, the lowest index on a tie; the logits get a gradient through kl alone.

    logits: (..., G, K). embedding: (G, K, D).
    """
    indices = logits.argmax(-1)
    unusable = ~(logits.amax(-1).isfinite() & embedding.isfinite().all(-1).all(-1))
    rows = _vectors.rows_at(embedding, indices).to(logits.dtype)
    quantized = rows.masked_fill(unusable.unsqueeze(-1), math.nan)
    kl = weights = None
    if return_kl:
        codebook = _vectors.stand_in(embedding, compute_dtype(logits))
        kl = posterior_kl(logits, codebook, is_logits=True, backend=backend)
    if return_weights:
        hot = indices.unsqueeze(-1) == torch.arange(logits.shape[-1], device=indices.device)
        weights = hot.to(logits.dtype).masked_fill(unusable.unsqueeze(-1), math.nan)
    return Taken(quantized, indices, kl, weights)


def diversity(logits: Tensor, counted: Tensor) -> Tensor:
    """(G K - sum over g of exp(entropy of the mean of softmax(logits[:, g]))) / (G K), 0-d.

    The diversity loss of wav2vec 2.0 (Baevski et al., NeurIPS 2020, equation 4, in the form that its program
    minimises): 0 if the codes of each codebook are equally probable on average over the batch, near 1 if one
    code of each has all the probability. A codebook without a row that counts contributes 0.

    logits: (..., G, K). counted: bool, (..., G), the rows that enter the mean.
    """
    codebooks, codes = logits.shape[-2:]
    kept = counted.unsqueeze(-1)
    # NaN is replaced before the softmax, whose derivative would carry it on.
    probabilities = logits.to(compute_dtype(logits)).masked_fill(~kept, 0).softmax(-1)
    total = torch.where(kept, probabilities, 0).reshape(-1, codebooks, codes).sum(0)
    rows = counted.reshape(-1, codebooks).sum(0)
    mean = total / rows.clamp(min=1).unsqueeze(-1)
    # The logarithm of 0 has no derivative.
    entropy = -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum(-1)
    return torch.where(rows > 0, codes - entropy.exp(), 0).sum() / (codebooks * codes)


def mean_kl(kl: Tensor, counted: Tensor) -> Tensor:
    """The mean of kl over the rows that count, 0 without any."""
    return torch.where(counted, kl, 0).sum() / counted.sum().clamp(min=1)
