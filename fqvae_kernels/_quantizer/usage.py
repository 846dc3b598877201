"""Counts how often each code is taken. Counting affects no result and no program that is captured."""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae_kernels._call import Tally
from fqvae_kernels._quantizer.capture import happens_once
from fqvae_kernels._tensors import dense
from fqvae_kernels.backends import cpu


class UsageCounter:
    """A table (latents, codes) of int64 counts, which grows with the latents that it is shown.

    It is no buffer: DistributedDataParallel would overwrite every rank's counts by those of rank 0.
    """

    def __init__(self, latents: int, codes: int) -> None:
        self._table = _zeros(latents, codes, torch.device("cpu"))

    def count(self, indices: Tensor, latents: int, masked: bool = False) -> None:
        """Add indices (..., latents), unless a program is being captured or a forward pass repeated.

        masked: there may be indices of -1, which do not count.
        """
        # While a program is captured it may not hold the count.
        if not happens_once(indices):
            return
        # No mode may see what is counted: selective checkpointing compares the operators of both passes.
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            self._add(indices, latents, masked)

    def tally(self, z: Tensor, latents: int) -> Tally | None:
        """Where a native pass over z, (..., latents), may count the codes that it takes; None: it may not."""
        if latents == 0 or not happens_once(z):
            return None
        self._grow(latents, z.device)
        return Tally(self._table, latents)

    def local(self) -> Tensor:
        """The counts of this process, (latents, codes)."""
        return self._table.clone()

    def total(self, device: torch.device) -> Tensor:
        """The counts of all ranks: a collective call on the device, where torch.distributed is initialised.

        Ranks may have seen different numbers of latents, also none.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.local()
        known, codes = self._table.shape
        latents = torch.tensor(known, device=device)
        torch.distributed.all_reduce(latents, torch.distributed.ReduceOp.MAX)
        total = torch.zeros((int(latents.item()), codes), dtype=torch.int64, device=device)
        total[:known] = self._table
        torch.distributed.all_reduce(total)
        return total

    def reset(self) -> None:
        """Start anew, with as many latents as before."""
        latents, codes = self._table.shape
        self._table = _zeros(latents, codes, self._table.device)

    def restore(self, counts: Tensor) -> None:
        """Go on from these counts, int64 (latents, codes)."""
        self._table = counts.detach().clone()

    def _add(self, indices: Tensor, latents: int, masked: bool) -> None:
        self._grow(latents, indices.device)
        if indices.numel() == 0:
            return
        if cpu.unavailable_reason(indices.device) is None:
            cpu.count_codes(dense(indices), Tally(self._table, latents))
            return
        codes = self._table.shape[1]
        first = torch.arange(latents, device=indices.device) * codes
        places = (indices.reshape(-1, latents) + first).reshape(-1)
        if masked:
            counted = (indices >= 0).reshape(-1).to(torch.int64)
            self._table.view(-1).scatter_add_(0, places.clamp_(min=0), counted)
            return
        one = torch.ones((), dtype=torch.int64, device=indices.device)
        self._table.view(-1).scatter_add_(0, places, one.expand_as(places))

    def _grow(self, latents: int, device: torch.device) -> None:
        known, codes = self._table.shape
        if known < latents or self._table.device != device:
            table = _zeros(max(latents, known), codes, device)
            table[:known] = self._table.to(device)
            self._table = table


def code_perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of each row of counts (..., K), float64 (...): the effective number of codes.

    K if all codes are used alike, 1 if one is, 0 without any count.
    """
    counts = counts.double()
    total = counts.sum(-1)
    share = counts / total.clamp(min=1).unsqueeze(-1)
    return torch.where(total > 0, torch.special.entr(share).sum(-1).exp(), 0)


def _zeros(latents: int, codes: int, device: torch.device) -> Tensor:
    # What is made in inference mode could not be added to outside it.
    with torch.inference_mode(False):
        return torch.zeros((latents, codes), dtype=torch.int64, device=device)
