"""What stands between a user's tensors and rows of latents: layout, projections and the mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fqvae_kernels._arguments import check_count
from fqvae_kernels._quantizer import layout, masks
from fqvae_kernels._quantizer.checks import check_z
from fqvae_kernels._quantizer.codebook import Codebook, codes_at
from fqvae_kernels._quantizer.counting import Counting
from fqvae_kernels._quantizer.indices import check_integers, check_range
from fqvae_kernels._quantizer.output import QuantizerOutput
from fqvae_kernels._quantizer.projection import check_dims, project_in, project_out
from fqvae_kernels._quantizer.tokens import check_tokens_fit, pack, unpack
from fqvae_kernels._quantizer.usage import UsageCounter

# A table of the usage of an unfixed number of latents has no more counts: 32 MiB.
_MOST_COUNTS = 2**22


class Arranged(Codebook, Counting):
    """The part of a `ScalarQuantizer` that knows where the latents are; its arguments are described there.

    Submodules: `project_in` and `project_out`, torch.nn.Linear, where dim is given, else None.
    """

    project_in: torch.nn.Linear | None
    project_out: torch.nn.Linear | None

    def __init__(
        self, *codebook: Any, channel_first: bool | None, dim: int | None, num_latents: int | None
    ) -> None:
        super().__init__(*codebook)
        self.channel_first = layout.check_channel_first(channel_first)
        self.dim, latents = check_dims(dim, num_latents, self.num_codebooks)
        # How many latents indices have; None: any number, all under the single codebook.
        self.num_latents = self.num_codebooks if self.num_codebooks > 1 else latents
        self._usage = UsageCounter(self.num_latents or 0, self.codebook_size)
        self.project_in = self.project_out = None
        if self.dim is not None and latents is not None:
            self.project_in = torch.nn.Linear(self.dim, latents)
            self.project_out = torch.nn.Linear(latents, self.dim)

    def init_from(self, z: Tensor) -> None:
        super().init_from(self._arrange(z, None)[0] if self._arranges(z) else z)

    def codes(self, indices: Tensor) -> Tensor:
        """The code at each index, differentiable in the codebook; 0 at -1, the index of a masked row.

        With `dim` the codes of a position are projected, as `quantized` is, and differentiable in the
        projection: they have dim in the place of num_latents, and 0 where all indices of a position are -1.

        indices: int32 or int64, -1 or in [0, K), where K is the latent's level if there are levels; any
        shape, or (..., latents) if their number is fixed, or with channel_first (B, latents, ...). Returns
        the same shape in the codebook's dtype.

        Raises TypeError and ValueError for another dtype or shape, and ValueError for another index in eager
        tensors on the CPU. Nowhere else is it looked for, since that would wait for the device: an index of
        K or more is then out of bounds, as for torch.gather, and one below -1 counts as -1.
        """
        self._check_indices(indices)
        places = layout.channels_last(indices) if self.channel_first else indices
        codes = codes_at(self.codebook, places.clamp(min=0).long()).masked_fill(places < 0, 0)
        if self.project_out is not None:
            codes = project_out(self.project_out, codes, places >= 0)
        return layout.channels_first(codes, indices) if self.channel_first else codes

    def count_usage(self, indices: Tensor) -> None:
        """Add codes to `usage` that a program took which does not count by itself, such as a compiled one.

        indices: int32 or int64, the shape of z; -1, that of a masked row, does not count. Raises TypeError
        and ValueError as `codes` does.
        """
        self._check_indices(indices)
        if self.channel_first:
            indices = layout.channels_last(indices)
        self._usage.count(indices.long(), self._counted_latents(indices), masked=True)

    def to_tokens(self, indices: Tensor) -> Tensor:
        """One int64 for all indices of a position: the number that they are the digits of, from 0 on.

        The first latent is the leading digit, and a latent's level (K, without levels) is the base of its
        digit. A position where an index is -1 has the token -1.

        indices: int32 or int64, (..., latents), or with channel_first (batch, latents, ...). With any number
        of latents and four or more dimensions channel_first must have been given. Returns indices' shape
        without the latents' dimension.

        Raises TypeError and ValueError as `codes`; ValueError where the levels' product is beyond 2**63.
        """
        self._check_indices(indices)
        if indices.dim() == 0:
            raise ValueError("indices must have shape (..., latents), but had shape ()")
        if self.num_latents is None and self.channel_first is None and indices.dim() >= 4:
            raise ValueError(
                f"channel_first must be given for tokens of indices of shape {tuple(indices.shape)}, whose "
                "latents may be in dimension 1 (channel_first=True) or in the last one (channel_first=False)"
            )
        places = layout.channels_last(indices) if self.channel_first else indices
        sizes = self._sizes(places.shape[-1])
        check_tokens_fit(sizes)
        return pack(places, sizes)

    def from_tokens(self, tokens: Tensor, num_latents: int | None = None) -> Tensor:
        """The indices that `to_tokens` made tokens of, int64.

        tokens: int32 or int64, any shape, or with channel_first (batch, ...). num_latents: needed
        where the quantizer takes any number of them, with its single codebook. Returns (..., latents), or
        with channel_first (batch, latents, ...): -1 where the token is.

        Raises TypeError and ValueError for another dtype or shape, for a product of the levels beyond 2**63,
        and, in eager tensors on the CPU, for a token that is not below that product and not -1.
        """
        check_integers("tokens", tokens)
        if num_latents is None:
            num_latents = self.num_latents
        if num_latents is None:
            raise ValueError("num_latents must be given: this quantizer takes any number of latents")
        num_latents = check_count("num_latents", num_latents, 1)
        if self.num_latents not in (None, num_latents):
            raise ValueError(f"num_latents must be {self.num_latents} here, but was {num_latents}")
        if self.channel_first and tokens.dim() == 0:
            raise ValueError(
                "tokens must have shape (batch, ...), since channel_first is True, but had shape ()"
            )
        sizes = self._sizes(num_latents)
        check_range("tokens", tokens, check_tokens_fit(sizes))
        indices = unpack(tokens, sizes)
        return layout.channels_first(indices, tokens) if self.channel_first else indices

    def _sizes(self, latents: int) -> tuple[int, ...]:
        """How many codes each latent has."""
        return (self.codebook_size,) * latents if self.levels is None else self.levels

    def _check_indices(self, indices: Tensor) -> None:
        check_integers("indices", indices)
        layout.check_layout("indices", indices, self.channel_first, self.num_latents)
        if self.levels is None:
            check_range("indices", indices, self.codebook_size)
            return
        dim = 1 if self.channel_first else -1
        for latent, (column, level) in enumerate(zip(indices.unbind(dim), self.levels, strict=True)):
            check_range(f"indices of latent {latent}", column, level)

    def _arranges(self, z: Tensor) -> bool:
        """Whether there is something about the layout of z to check or to change."""
        if self.channel_first or self.dim is not None:
            return True
        return self.num_codebooks > 1 and isinstance(z, Tensor) and z.dim() > 2

    def _arrange(self, z: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """z and mask as (..., latents), z projected, and hidden where the mask is False."""
        check_z(z)
        size = self.num_latents if self.dim is None else self.dim
        name = "latents" if self.dim is None else "channels"
        layout.check_layout("z", z, self.channel_first, size, name)
        if size is not None:
            layout.check_unambiguous(z, self.channel_first, size, name)
        if mask is not None:
            latent_dim = 1 if self.channel_first else -1
            shape = list(z.shape)
            if self.dim is not None and self.num_latents is not None:
                shape[latent_dim] = self.num_latents
            mask = masks.check_mask(mask, tuple(shape), latent_dim, z.device)
        if self.channel_first:
            z = layout.channels_last(z)
            mask = None if mask is None else layout.channels_last(mask)
        if self.project_in is not None:
            z = project_in(self.project_in, z)
        return z if mask is None else masks.hide(z, mask), mask

    def _arrange_output(self, out: QuantizerOutput, z: Tensor, mask: Tensor | None) -> QuantizerOutput:
        """The output for z as it was given: projected, and in its layout."""
        if self.project_out is not None:
            quantized = project_out(self.project_out, out.quantized, mask)
            out = QuantizerOutput(quantized, out.indices, out.loss, out.kl, out.weights, out.losses)
        return layout.output_channels_first(out, z) if self.channel_first else out

    def _latents(self, indices: Tensor) -> int:
        """How many latents indices (..., latents) have; 1 where their last dimension may count places."""
        if self.num_latents is not None:
            return self.num_latents
        if indices.dim() < 2 or (indices.dim() > 3 and self.channel_first is None):
            return 1
        return indices.shape[-1]

    def _counted_latents(self, indices: Tensor) -> int:
        """For how many of them the usage has counts of their own; no loss depends on it."""
        latents = self._latents(indices)
        too_many = self.num_latents is None and latents * self.codebook_size > _MOST_COUNTS
        return 1 if too_many else latents
