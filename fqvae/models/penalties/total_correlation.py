"""Total correlation by the density ratio of a discriminator.

The discriminator tells latents of images (label 0) from latents whose every part comes from another image
(label 1). Kim & Mnih, "Disentangling by Factorising", ICML 2018.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fqvae.models.penalties.penalty import Penalty, Seen


def total_correlation(logits: Tensor) -> Tensor:
    """mean(logits[:, 0] - logits[:, 1]), which estimates KL(q(z) || prod_j q(z_j)) in nats.

    logits: the discriminator's, (batch, 2).
    """
    return (logits[:, 0] - logits[:, 1]).mean()


def discriminator_loss(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and accuracy of the discriminator. logits: (2 batch, 2), the latents of images first."""
    labels = torch.arange(2, device=logits.device).repeat_interleave(logits.shape[0] // 2)
    loss = F.cross_entropy(logits, labels)  # the halves are equal: 1/2 CE(joint, 0) + 1/2 CE(product, 1)
    return loss, (logits.argmax(1) == labels).float().mean()


def draw_permutations(batch: int, latents: int, seed: int) -> Tensor:
    """A permutation of the batch for each latent, (batch, latents) int64, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, latents, generator=generator, dtype=torch.float64).argsort(0)


def permute_latents(latents: Tensor, permutations: Tensor) -> Tensor:
    """out[i, j] = latents[permutations[i, j], j]: what belongs to a latent moves together.

    latents: (batch, M, ...). permutations: (rows, M), a permutation's rows or some of them.
    Returns (rows, M, ...).
    """
    permutations = permutations.to(latents.device)
    return latents[permutations, torch.arange(latents.shape[1], device=latents.device)]


def _by_discriminator(seen: Seen) -> Tensor:
    assert seen.discriminator is not None and seen.drawn.discriminator_input is not None
    return total_correlation(seen.discriminator(seen.drawn.discriminator_input))


TOTAL_CORRELATION = Penalty(
    "total_correlation",
    "total correlation",
    "how far the latents are from independent, as the discriminator estimates it",
    goes_with=lambda latent: latent.kind == "plain" or latent.has_posterior,
    compute=_by_discriminator,
    needs=frozenset({"discriminator"}),
    unit="nats",
    source="estimated by the discriminator",
)
