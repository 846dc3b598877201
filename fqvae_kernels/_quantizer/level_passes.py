"""How codes are taken where each latent has a number of codes of its own.

A kernel takes codebooks of one size. So there is a pass over all rows for each size among the levels, with
the first codes of every codebook, and each latent keeps what the pass of its own size gave. Rows keep their
numbers and codes theirs, so every latent gets to the bit what a codebook of its own would give it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels import _arguments, _operators, autograd
from fqvae_kernels._quantizer.checks import check_z
from fqvae_kernels._quantizer.entropy import entropy_term
from fqvae_kernels._quantizer.estimator import Taken, draw_codes, nearest_codes
from fqvae_kernels._quantizer.levels import beyond
from fqvae_kernels._quantizer.precision import Factor
from fqvae_kernels._seeds import draw_seed


class LevelPasses:
    """What passes compute for the latents of a codebook with levels, each from its own codes.

    places: of `own_codes`, which gives the codebook too.
    """

    def __init__(self, levels: tuple[int, ...], places: Tensor) -> None:
        self.levels = levels
        self.places = places

    def draw(self, z: Tensor, codebook: Tensor, factor: Factor | None, **options: Any) -> Taken:
        """As `draw_codes`."""
        if options["seed"] is None:
            check_z(z)
            options["seed"] = _one_seed(z)
        return self._take(lambda book: draw_codes(z, book, factor, **options), codebook)

    def nearest(self, z: Tensor, codebook: Tensor, factor: Factor | None, **options: Any) -> Taken:
        """As `nearest_codes`."""
        if options["return_kl"]:
            return self._take(lambda book: nearest_codes(z, book, factor, **options), codebook)
        # One pass serves all: what lies beyond a level is the last code again, and of equal codes the first
        # is taken.
        taken = nearest_codes(z, codebook, factor, **options)
        # A row that is not finite has any index.
        indices = taken.indices.minimum(self.places[:, -1])
        weights = None if taken.weights is None else taken.weights.masked_fill(beyond(self.places), 0)
        return Taken(taken.quantized, indices, None, weights)

    def entropy(
        self, z: Tensor, codebook: Tensor, factor: Factor | None, kl: Tensor, counted: Tensor, latents: int
    ) -> Tensor:
        """As `entropy_term`: the terms of the latents, in proportion to their rows."""
        total = torch.zeros((), dtype=kl.dtype, device=z.device)
        for latent, level in enumerate(self.levels):
            own = factor[latent] if isinstance(factor, Tensor) and factor.dim() == 1 else factor
            rows = counted[..., latent]
            term = entropy_term(z[..., latent], codebook[latent, :level], own, kl[..., latent], rows, 1)
            total = total + term * rows.sum()
        return total / counted.sum().clamp(min=1)

    def _take(self, take: Callable[[Tensor], Taken], codebook: Tensor) -> Taken:
        """A pass for each size. take: for a codebook (L, size)."""
        taken = take(codebook)
        for size in sorted(set(self.levels) - {max(self.levels)}):
            is_own = self.places[:, -1] == size - 1
            taken = _joined(is_own, take(codebook[:, :size]), taken)
        return taken


def _joined(is_own: Tensor, own: Taken, others: Taken) -> Taken:
    """The latents (L,) that are its own from `own`, the rest from `others`, whose weights have more codes."""
    kl = weights = None
    if own.kl is not None and others.kl is not None:
        kl = torch.where(is_own, own.kl, others.kl)
    if own.weights is not None and others.weights is not None:
        more = others.weights.shape[-1] - own.weights.shape[-1]
        padded = torch.nn.functional.pad(own.weights, (0, more))
        weights = torch.where(is_own.unsqueeze(-1), padded, others.weights)
    return Taken(
        torch.where(is_own, own.quantized, others.quantized),
        torch.where(is_own, own.indices, others.indices),
        kl,
        weights,
    )


def _one_seed(z: Tensor) -> int | Tensor:
    """A seed for all passes, drawn as a single one would draw it."""
    if autograd.is_traced(z):
        _arguments.check_seed_may_be_drawn()
        return _operators.draw_seed(z.device)
    return draw_seed(z)
