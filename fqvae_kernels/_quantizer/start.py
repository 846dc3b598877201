"""Codes that start as quantiles of the first data that comes: init="data"."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class DataStart(torch.nn.Module):
    """Which codebooks have started: the buffer `done`, (codebooks,), int64, 1 or 0, which
    `state_dict` holds."""

    done: Tensor

    def __init__(self, codebooks: int) -> None:
        super().__init__()
        # int64 as other counts: torch.optim.swa_utils.AveragedModel cannot average bool.
        self.register_buffer("done", torch.zeros(codebooks, dtype=torch.int64))
        # What a call asks first: the buffer may be on a GPU, where reading it takes time.
        self.may_wait = True

    def is_waiting(self) -> bool:
        """Whether a codebook has not started yet."""
        if self.may_wait:
            self.may_wait = not bool(self.done.all())
        return self.may_wait

    def reset(self) -> None:
        """No codebook has started."""
        self.done.zero_()
        self.may_wait = True

    def finish(self) -> None:
        """All codebooks have started."""
        self.done.fill_(1)
        self.may_wait = False

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.may_wait = True


def starting_codes(z: Tensor, codebooks: int, codes: int) -> Tensor:
    """Codes for each codebook, (codebooks, codes): quantiles (k + 1/2) / codes of its finite values of z.

    Where torch.distributed is initialised this is a collective call, and the quantiles are those of all
    ranks' quantiles together: the same on every rank. A codebook that has no finite value, or whose
    quantiles are all the same though it has several codes, gets NaN.
    """
    found = _quantiles(z.reshape(-1, codebooks).T, codes)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        every = [torch.empty_like(found) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(every, found)
        found = _quantiles(torch.cat(every, -1), codes)
    return found if codes == 1 else torch.where(found[:, :1] < found[:, -1:], found, math.nan)


def _quantiles(rows: Tensor, count: int) -> Tensor:
    """Of the finite values of each row, between the two that are nearest; NaN in a row without any."""
    found = torch.full((rows.shape[0], count), math.nan, dtype=rows.dtype, device=rows.device)
    for row, place in zip(rows, found, strict=True):
        values = row[row.isfinite()].sort().values
        if len(values) == 0:
            continue
        at = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count * len(values) - 0.5
        at = at.clamp(0, len(values) - 1)
        low = at.floor()
        share = (at - low).to(rows.device, rows.dtype)
        low = low.long().to(rows.device)
        high = (low + 1).clamp(max=len(values) - 1)
        place.copy_(values[low] * (1 - share) + values[high] * share)
    return found
