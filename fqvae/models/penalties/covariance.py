"""The covariance of the latents against the identity: the DIP-VAE's penalties, of its second kind.

The covariance of z over all images is that of the posteriors' means plus the mean of their variances. Kumar,
Sattigeri & Balakrishnan, "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations",
ICLR 2018, section 3. It is taken from what one process has of the batch, divided by the number of images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae.models.penalties.penalty import Penalty, Seen


def covariance(seen: Seen) -> Tensor:
    """Cov[mean] + E[diag(variance)], (M, M)."""
    mean, log_variance = seen.drawn.z, seen.drawn.log_variance
    assert log_variance is not None
    centred = mean - mean.mean(0)
    # Not a matrix product, which autocast would do in bfloat16.
    products = (centred.unsqueeze(2) * centred.unsqueeze(1)).mean(0)
    return products + torch.diag(log_variance.exp().mean(0))


def off_diagonal(seen: Seen) -> Tensor:
    """sum over i != j of Cov[z]_ij**2."""
    found = covariance(seen)
    return (found - torch.diag(found.diagonal())).square().sum()


def diagonal(seen: Seen) -> Tensor:
    """sum over i of (Cov[z]_ii - 1)**2."""
    return (covariance(seen).diagonal() - 1).square().sum()


COVARIANCE = Penalty(
    "covariance",
    "covariance of latents",
    "squared covariances of different latents, summed",
    goes_with=lambda latent: latent.kind == "gaussian",
    compute=off_diagonal,
)

VARIANCE = Penalty(
    "variance",
    "variance of latents",
    "squared distance of the latents' variances from 1, summed",
    goes_with=lambda latent: latent.kind == "gaussian",
    compute=diagonal,
)
