"""The two losses of a training step: of the autoencoder and, with total correlation, of the discriminator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fqvae.models.autoencoder import Autoencoder
from fqvae.models.latents import Drawn, Noise
from fqvae.models.total_correlation import (
    discriminator_loss,
    draw_permutations,
    permute_latents,
    total_correlation,
)
from fqvae.training.counters import derive_seed


@dataclass(frozen=True)
class Place:
    """Which step of which run this is, at what temperature, and which process's share of the batch."""

    seed: int
    step: int
    temperature: float
    rank: int = 0
    world: int = 1


@dataclass(eq=False)
class Losses:
    """What to differentiate; neither loss reaches the other's weights.

    autoencoder: 0-d. discriminator: 0-d, or None without one.
    terms: the reconstruction error, the penalties before their weights, and the discriminator's accuracy.
    codes: those drawn for the autoencoder's loss, (batch, M), or None.
    """

    autoencoder: Tensor
    discriminator: Tensor | None
    terms: dict[str, Tensor]
    codes: Tensor | None


def compute_losses(
    autoencoder: Autoencoder, discriminator: nn.Module | None, images: Tensor, place: Place
) -> Losses:
    """The losses of a batch at the present weights.

    images: (batch, 3, S, S) as for `to_float`; with a discriminator two independent halves, of which the
    second is encoded without gradients and never decoded.
    """
    if discriminator is None:
        drawn = _draw(autoencoder, images, place, 0, features=False)
        terms = {"reconstruction": F.mse_loss(autoencoder.decoder(drawn.quantized), images), **drawn.terms}
        return Losses(_weighted(autoencoder, terms), None, terms, drawn.codes)

    first, second = images.chunk(2)
    drawn = _draw(autoencoder, first, place, 0, features=True)
    terms = {"reconstruction": F.mse_loss(autoencoder.decoder(drawn.quantized), first), **drawn.terms}
    with frozen(discriminator):
        terms["total_correlation"] = total_correlation(discriminator(drawn.features))
    loss = _weighted(autoencoder, terms)

    # The first half's latents against the second half's, each latent shuffled over the whole batch.
    with torch.no_grad():
        shuffled = _shuffle(_draw(autoencoder, second, place, 1, features=True), place)
    assert drawn.features is not None
    logits = discriminator(torch.cat([drawn.features.detach(), shuffled]))
    against, terms["discriminator_accuracy"] = discriminator_loss(logits)
    return Losses(loss, against, terms, drawn.codes)


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, what is computed with the module sends gradients through it, but none to its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _weighted(autoencoder: Autoencoder, terms: dict[str, Tensor]) -> Tensor:
    """The reconstruction error and the penalties that have a weight, summed."""
    weights = {"reconstruction": 1.0, **vars(autoencoder.config.weights)}
    return torch.stack([weights[name] * term for name, term in terms.items() if weights[name]]).sum()


def _draw(autoencoder: Autoencoder, images: Tensor, place: Place, half: int, *, features: bool) -> Drawn:
    """This process's share of a half. All halves of all processes are one stream of noise."""
    first = (half * place.world + place.rank) * images.shape[0]
    noise = Noise(derive_seed(place.seed, "noise", place.step), first)
    return autoencoder.draw(images, noise, temperature=place.temperature, features=features)


def _shuffle(drawn: Drawn, place: Place) -> Tensor:
    """This process's share of the features of all processes, each latent permuted over all images."""
    assert drawn.features is not None
    features = drawn.features
    rows = features.shape[0]
    if place.world > 1:
        shares = [torch.empty_like(features) for _ in range(place.world)]
        torch.distributed.all_gather(shares, features.contiguous())
        features = torch.cat(shares)
    seed = derive_seed(place.seed, "permutation", place.step)
    permutations = draw_permutations(features.shape[0], features.shape[1], seed)
    return permute_latents(features, permutations[place.rank * rows : (place.rank + 1) * rows])
