"""The two penalties that draw z and its codes together (VQ-VAE: van den Oord et al., NeurIPS 2017)."""

from __future__ import annotations

from torch import Tensor

from fqvae.models.penalties.penalty import Penalty, Seen


def commitment(seen: Seen) -> Tensor:
    """mean((sg[code] - z)**2), which moves z alone; sg stops the gradient."""
    drawn = seen.drawn
    assert drawn.chosen is not None
    return (drawn.z - drawn.chosen.detach()).square().mean()


def codebook(seen: Seen) -> Tensor:
    """mean((code - sg[z])**2), which moves the codes alone."""
    drawn = seen.drawn
    assert drawn.chosen is not None
    return (drawn.chosen - drawn.z.detach()).square().mean()


COMMITMENT = Penalty(
    "commitment",
    "commitment",
    "squared distance of z from its codes, which moves z",
    goes_with=lambda latent: latent.estimator == "nearest",
    compute=commitment,
)

CODEBOOK = Penalty(
    "codebook",
    "codebook",
    "squared distance of z from its codes, which moves the codes",
    goes_with=lambda latent: latent.estimator == "nearest",
    compute=codebook,
)
