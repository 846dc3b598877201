"""The KL divergence of a Gaussian posterior in three parts: the beta-TCVAE's penalties.

E[KL(q(z|x) || p(z))] = I(x; z) + KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j)), for an image x that
is one of N and z from q(z|x). The minibatch-weighted estimator takes, with a batch of B images,

    ln q(z) ~ ln sum_b q(z | x_b) - ln(N B)

and the same for each latent by itself. Ricky T. Q. Chen, Xuechen Li, Roger Grosse, David Duvenaud, "Isolating
Sources of Disentanglement in Variational Autoencoders", NeurIPS 2018. N moves the three parts by constants
and changes no gradient. B is what one process has: several processes take the mean over their shares.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fqvae.models.penalties.penalty import Penalty, Seen


class LogDensities(NamedTuple):
    """Of each image's sample, (batch,), in nats."""

    given_image: Tensor
    joint: Tensor
    product: Tensor
    prior: Tensor


def log_densities(seen: Seen) -> LogDensities:
    """ln q(z|x), ln q(z), sum_j ln q(z_j) and ln p(z) of the samples; the middle two are estimates."""
    drawn, size = seen.drawn, seen.set_size
    assert drawn.log_variance is not None and size is not None
    sample, mean, log_variance = drawn.quantized, drawn.z, drawn.log_variance
    # [i, b, j]: the density of latent j of image i's sample under image b's posterior
    pairs = _log_normal(sample.unsqueeze(1), mean, log_variance)
    scale = math.log(size * len(sample))
    zero = torch.zeros_like(sample)
    return LogDensities(
        _log_normal(sample, mean, log_variance).sum(1),
        pairs.sum(2).logsumexp(1) - scale,
        (pairs.logsumexp(1) - scale).sum(1),
        _log_normal(sample, zero, zero).sum(1),
    )


def index_code_information(seen: Seen) -> Tensor:
    """mean(ln q(z|x) - ln q(z))."""
    found = log_densities(seen)
    return (found.given_image - found.joint).mean()


def batch_total_correlation(seen: Seen) -> Tensor:
    """mean(ln q(z) - sum_j ln q(z_j))."""
    found = log_densities(seen)
    return (found.joint - found.product).mean()


def dimension_wise_kl(seen: Seen) -> Tensor:
    """mean(sum_j ln q(z_j) - ln p(z))."""
    found = log_densities(seen)
    return (found.product - found.prior).mean()


def _log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -((z - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)) / 2


INDEX_CODE_INFORMATION = Penalty(
    "index_code_information",
    "index-code information",
    "what a sample tells of its image, estimated from the batch",
    goes_with=lambda latent: latent.kind == "gaussian",
    compute=index_code_information,
    needs=frozenset({"set_size"}),
    unit="nats",
)

BATCH_TOTAL_CORRELATION = Penalty(
    "batch_total_correlation",
    "total correlation from the batch",
    "how far the latents are from independent, estimated from the batch without a discriminator",
    goes_with=lambda latent: latent.kind == "gaussian",
    compute=batch_total_correlation,
    needs=frozenset({"set_size"}),
    unit="nats",
)

DIMENSION_WISE_KL = Penalty(
    "dimension_wise_kl",
    "dimension-wise KL divergence",
    "of each latent's distribution over all images from the prior, summed, estimated from the batch",
    goes_with=lambda latent: latent.kind == "gaussian",
    compute=dimension_wise_kl,
    needs=frozenset({"set_size"}),
    unit="nats",
)
