"""The losses of a training step: of the autoencoder and, if a penalty needs one, of a discriminator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fqvae.models.autoencoder import Autoencoder
from fqvae.models.latents import Drawn, Noise
from fqvae.models.penalties import Seen
from fqvae.models.penalties.total_correlation import (
    discriminator_loss,
    draw_permutations,
    permute_latents,
)
from fqvae.training.counters import derive_seed


@dataclass(frozen=True)
class Place:
    """Which step of which run this is, at what temperature, and which process's share of the batch.

    set_size: the number of training images, which some penalties need.
    total_correlation: whether it has its weight; otherwise that is 0.
    """

    seed: int
    step: int
    temperature: float
    rank: int = 0
    world: int = 1
    set_size: int | None = None
    total_correlation: bool = True


@dataclass(eq=False)
class Charged:
    """The autoencoder's side of a step.

    loss: 0-d, of the autoencoder's weights alone. terms: the reconstruction error and the penalties that have
    a weight, before it. drawn: the latents that were decoded.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    drawn: Drawn


def charge_autoencoder(
    autoencoder: Autoencoder, discriminator: nn.Module | None, images: Tensor, place: Place
) -> Charged:
    """The reconstruction error and the penalties of images, (batch, C, S, S) as for `to_float`.

    discriminator: None unless a penalty needs it.
    """
    config = autoencoder.config
    drawn = _draw(autoencoder, images, place, 0)
    terms = {"reconstruction": F.mse_loss(autoencoder.decoder(drawn.quantized), images)}
    seen = Seen(
        drawn, derive_seed(place.seed, f"penalties/{place.rank}", place.step), discriminator, place.set_size
    )
    with frozen(discriminator):
        terms |= {each.name: each(seen) for each in config.penalties}
    weights = [1.0, *(getattr(config.weights, each.name) for each in config.penalties)]
    if not place.total_correlation:
        weights = [0.0 if name == "total_correlation" else w for name, w in zip(terms, weights, strict=True)]
    loss = torch.stack([weight * term for weight, term in zip(weights, terms.values(), strict=True)]).sum()
    return Charged(loss, terms, drawn)


def charge_discriminator(
    autoencoder: Autoencoder, discriminator: nn.Module, second: Tensor, drawn: Drawn, place: Place
) -> tuple[Tensor, Tensor]:
    """The discriminator's loss, of its weights alone, and its accuracy, both 0-d.

    It tells the latents drawn for the autoencoder's loss from those of a second, independent half of the
    batch, each latent shuffled over the whole of it. second: encoded without gradients, never decoded.
    """
    with torch.no_grad():
        shuffled = _shuffle(_draw(autoencoder, second, place, 1), place)
    assert drawn.discriminator_input is not None
    return discriminator_loss(discriminator(torch.cat([drawn.discriminator_input.detach(), shuffled])))


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
    """Both losses of a batch at the present weights.

    images: (batch, C, S, S) as for `to_float`; with a discriminator two independent halves.
    """
    if discriminator is None:
        charged = charge_autoencoder(autoencoder, None, images, place)
        return Losses(charged.loss, None, charged.terms, charged.drawn.codes)
    first, second = images.chunk(2)
    charged = charge_autoencoder(autoencoder, discriminator, first, place)
    against, accuracy = charge_discriminator(autoencoder, discriminator, second, charged.drawn, place)
    terms = {**charged.terms, "discriminator_accuracy": accuracy}
    return Losses(charged.loss, against, terms, charged.drawn.codes)


@contextlib.contextmanager
def frozen(module: nn.Module | None) -> Iterator[None]:
    """Inside, what is computed with the module sends gradients through it, but none to its parameters."""
    if module is None:
        yield
        return
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _draw(autoencoder: Autoencoder, images: Tensor, place: Place, half: int) -> Drawn:
    """This process's share of a half. All halves of all processes are one stream of noise."""
    first = (half * place.world + place.rank) * images.shape[0]
    noise = Noise(derive_seed(place.seed, "noise", place.step), first)
    wanted = autoencoder.config.has_discriminator
    return autoencoder.draw(images, noise, temperature=place.temperature, discriminator_input=wanted)


def _shuffle(drawn: Drawn, place: Place) -> Tensor:
    """This process's share of the latents of all processes, each latent permuted over all images."""
    latents = drawn.discriminator_input
    assert latents is not None
    rows = latents.shape[0]
    if place.world > 1:
        shares = [torch.empty_like(latents) for _ in range(place.world)]
        torch.distributed.all_gather(shares, latents.contiguous())
        latents = torch.cat(shares)
    seed = derive_seed(place.seed, "permutation", place.step)
    permutations = draw_permutations(latents.shape[0], latents.shape[1], seed)
    return permute_latents(latents, permutations[place.rank * rows : (place.rank + 1) * rows])
