"""Codes that are vectors, by the definitions, in float64 with the truth's noise."""

import math

import torch
import truth

# Arguments of gumbel_quantize_logits.
KINDS = {
    "soft": {},
    "hard": {"hard": True},
    "straight_through": {"estimator": "straight_through"},
    "reinmax": {"estimator": "reinmax"},
}


def normal(shape, dtype=torch.float32, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def expected(logits, embedding, tau=1.0, hard=False, estimator="gumbel", seed=0, row_offset=0):
    """quantized, indices, kl, weights by the definitions, of float64; gradients by autograd.

    Second derivatives are those of one_hot + soft - soft.detach().
    """
    rows, codes = logits[..., 0].numel(), logits.shape[-1]
    posterior = logits.softmax(-1)
    if estimator == "gumbel":
        noise = torch.from_numpy(truth.gumbel(seed, rows, codes, row_offset)).reshape(logits.shape)
        indices = (logits + noise).argmax(-1)
        weights = soft = ((logits + noise) / tau).softmax(-1)
    else:
        u = torch.from_numpy(truth.row_uniform(seed, rows, row_offset)).reshape(*logits.shape[:-1], 1)
        indices = (posterior.cumsum(-1) > u).int().argmax(-1)
        soft = (logits / tau).softmax(-1)
    if hard or estimator != "gumbel":
        weights = torch.nn.functional.one_hot(indices, codes).to(logits.dtype)
        if estimator == "reinmax":
            half = ((soft + weights) / 2).detach()
            slope = (logits - logits.detach() + half.log()).softmax(-1)
            weights = weights + 2 * (slope - slope.detach()) - (posterior - posterior.detach()) / 2
        else:
            weights = weights + (soft - soft.detach())
    equation = "...lk,lkd->...ld" if embedding.dim() == 3 else "...k,kd->...d"
    kl = torch.special.entr(posterior).sum(-1).neg() + math.log(codes)
    return torch.einsum(equation, weights, embedding), indices, kl, weights


def leaves(*tensors):
    return [each.detach().clone().requires_grad_() for each in tensors]
