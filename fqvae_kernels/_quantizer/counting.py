"""What a quantizer says about the codes that were taken. `usage` holds the counts."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from fqvae_kernels import _arguments
from fqvae_kernels._quantizer.usage import UsageCounter, code_perplexity


class Counting(torch.nn.Module):
    """The part of a quantizer that says how often its codes were taken; who has it sets `_usage`."""

    _usage: UsageCounter

    @property
    def usage(self) -> Tensor:
        """Counts, int64, since the last reset, in training and in eval(): (latents, K), or for vector codes
        (num_codebooks, K). (0, K) before the first call where the number of latents is not fixed.

        Where torch.distributed is initialised it is the sum over all ranks: a collective call, which every
        rank must make. Ranks may have seen different numbers of latents.
        """
        return self._usage.total(self._collective_device())

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
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((each.device for each in tensors), torch.device("cpu"))
