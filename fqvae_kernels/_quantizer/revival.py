"""Codes that are not used for many calls restart at recent inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fqvae_kernels import _arguments


def make_revival(after: int | None, codebooks: int, codes: int, sorted: bool) -> Revival | None:
    """What restarts codes after so many calls, if they may move by themselves; None without a number."""
    if after is None:
        return None
    if sorted:
        raise ValueError(
            f"revive_after must be None where the codes are sorted, but was {after}: a code that restarts "
            "moves all codes above it"
        )
    return Revival(codebooks, codes, after)


class Revival(torch.nn.Module):
    """How long each code has been unused, and where it restarts.

    Buffers, which `state_dict` holds and which are the same on all ranks: `unused`, (codebooks, codes),
    int64, the calls since a code was last taken; `calls`, 0-d, int64, which seeds the choice of inputs.

    replaced: the codebook of the last call, if codes restarted after it; a backward pass that repeats the
    call wants it. None: its codes are as they were.
    """

    unused: Tensor
    calls: Tensor

    def __init__(self, codebooks: int, codes: int, after: int) -> None:
        super().__init__()
        self.replaced: Tensor | None = None
        self.after = _arguments.check_count("revive_after", after, 1)
        self.register_buffer("unused", torch.zeros(codebooks, codes, dtype=torch.int64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def reset(self) -> None:
        """Start counting anew."""
        self.replaced = None
        self.unused.zero_()
        self.calls.zero_()

    @torch.no_grad()
    def step(self, z: Tensor, indices: Tensor, codebook: Tensor) -> Tensor | None:
        """Count a call, and return the codebook, (K,) or (L, K), with codes that restart; None without any.

        z, indices: of the call, any shape, or (..., L). Rows that are not finite and indices below 0 do not
        count. Where torch.distributed is initialised it is a collective call: a code is unused if no rank
        takes it, and it restarts at an input of rank 0.
        """
        self.replaced = None
        codebooks = self.unused.shape[0]
        # Each codebook a row.
        z, indices = z.reshape(-1, codebooks).T, indices.reshape(-1, codebooks).T
        counts = (z.isfinite() & (indices >= 0)).long()
        taken = torch.zeros_like(self.unused).scatter_add_(1, indices.clamp(min=0), counts)
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if together:
            torch.distributed.all_reduce(taken)
        self.calls += 1
        self.unused += 1
        self.unused.masked_fill_(taken > 0, 0)
        due = self.unused >= self.after
        if not bool(due.any()):
            return None
        inputs = self._inputs(z).to(codebook.dtype)
        if together:
            torch.distributed.broadcast(inputs, src=0)
        due &= inputs.isfinite()
        self.replaced = codebook.detach().clone()
        self.unused.masked_fill_(due, 0)
        return torch.where(due, inputs, codebook.reshape(due.shape)).reshape(codebook.shape)

    def _inputs(self, z: Tensor) -> Tensor:
        """An input for each code, (codebooks, codes), NaN where a codebook's row of z has no finite one.

        Each code has a share of the row to itself, so that different codes take different inputs.
        """
        codebooks, codes = self.unused.shape
        generator = torch.Generator("cpu").manual_seed(int(self.calls))
        found = torch.full((codebooks, codes), math.nan, dtype=z.dtype, device=z.device)
        for row, place in zip(z, found, strict=True):
            order = torch.randperm(codes, generator=generator, device="cpu")
            share = (
                order + torch.rand(codes, generator=generator, dtype=torch.float64, device="cpu")
            ) / codes
            values = row[row.isfinite()]
            if len(values) > 0:
                at = (share * len(values)).long().clamp(max=len(values) - 1)
                place.copy_(values[at.to(z.device)])
        return found
