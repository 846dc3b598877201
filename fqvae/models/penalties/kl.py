"""KL divergence of the posterior from the prior: the beta-VAE's penalty (Higgins et al., ICLR 2017)."""

from __future__ import annotations

from torch import Tensor

from fqvae.models.penalties.penalty import Penalty, Seen


def mean_kl(seen: Seen) -> Tensor:
    """In nats: for codes the mean over latents and images; for a Gaussian the mean over images of the sum.

    The two differ in the paper's program (arXiv 2409.14851), whose weights they go with.
    """
    drawn = seen.drawn
    assert drawn.kl is not None
    return drawn.kl.mean() if drawn.codes is not None else drawn.kl.sum(1).mean()


KL = Penalty(
    "kl",
    "KL divergence",
    "of the posterior from the prior: per latent for codes, of all latents for a Gaussian",
    goes_with=lambda latent: latent.has_posterior,
    compute=mean_kl,
    unit="nats",
)
