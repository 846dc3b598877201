"""Penalties on the activity of latents (BioAE: Whittington et al., ICLR 2023)."""

from __future__ import annotations

from torch import Tensor

from fqvae.models.penalties.penalty import Penalty, Seen


def negative_part(seen: Seen) -> Tensor:
    """mean(max(-z, 0))."""
    return (-seen.drawn.z).clamp(min=0).mean()


def mean_square(seen: Seen) -> Tensor:
    """mean(z**2)."""
    return seen.drawn.z.square().mean()


NONNEGATIVITY = Penalty(
    "nonnegativity",
    "negative part of z",
    "how far latents lie below 0, on average",
    goes_with=lambda latent: latent.kind == "plain",
    compute=negative_part,
)

ACTIVITY = Penalty(
    "activity",
    "mean of z squared",
    "how far latents lie from 0, squared, on average",
    goes_with=lambda latent: latent.kind == "plain",
    compute=mean_square,
)
