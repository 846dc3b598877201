"""What a quantizer says about the codes that were taken. `usage` holds the counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fqvae_kernels import _arguments
from fqvae_kernels._quantizer import layout
from fqvae_kernels._quantizer.arrangement import Arranged
from fqvae_kernels._quantizer.usage import UsageCounter, code_perplexity


class Counted(Arranged):
    """The part of a `ScalarQuantizer` that counts its codes."""

    def __init__(self, *codebook: Any, **arrangement: Any) -> None:
        super().__init__(*codebook, **arrangement)
        self._usage = UsageCounter(self.num_latents or 0, self.codebook_size)

    @property
    def usage(self) -> Tensor:
        """Counts (latents, K), int64, since the last reset; (0, K) before the first call with a single
        codebook.

        Where torch.distributed is initialised it is the sum over all ranks: a collective call, which every
        rank must make. Ranks may have seen different numbers of latents.
        """
        return self._usage.total(self._collective_device())

    def count_usage(self, indices: Tensor) -> None:
        """Add codes to `usage` that a program took which does not count by itself, such as a compiled one.

        indices: int32 or int64, the shape of z; -1, that of a masked row, does not count. Raises TypeError
        and ValueError as `codes` does.
        """
        self._check_indices(indices)
        if self.channel_first:
            indices = layout.channels_last(indices)
        self._usage.count(indices.long(), self._latents(indices), masked=True)

    def reset_usage(self) -> None:
        """Start counting anew."""
        self._usage.reset()

    def perplexity(self, sync: bool = True) -> Tensor:
        """exp of the entropy of each latent's usage, (latents,), float32: K if all codes are used alike, 1
        if one is.

        A latent without counts has 0.

        sync: sum the counts over all ranks, as `usage` does: a collective call where torch.distributed is
            initialised. False: this process's own counts.
        """
        _arguments.check_flag("sync", sync)
        return code_perplexity(self.usage if sync else self._usage.local()).float()

    def _collective_device(self) -> torch.device:
        """Where ranks exchange counts: with the parameters, since some backends reach no other device."""
        return next(self.parameters()).device
