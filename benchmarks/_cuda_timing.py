"""Timing on a CUDA device: events around work that is already queued, on inputs that are not in its cache."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from _contenders import Case, Contender

# Seconds that the device is held up so that the host can queue a turn: the first try, and the last.
_FIRST_WAIT, _LAST_WAIT = 1e-3, 64e-3
# No GPU clock is faster, so that a wait in cycles is at least as long as asked.
_CYCLES_A_SECOND = 2.5e9
_MOST_COPIES = 4096

_waits: dict[str, float] = {}


def copies_past_cache(bytes_a_copy: int, cache_bytes: int) -> int:
    """How many copies of a turn's inputs fill the cache twice, so that the oldest is no longer in it."""
    return min(_MOST_COPIES, max(1, math.ceil(2 * cache_bytes / max(1, bytes_a_copy))))


def cache_bytes(device: torch.device) -> int:
    """The size of the device's L2 cache; 64 MiB where PyTorch does not say."""
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or 64 * 2**20


def time_turn(contender: Contender, case: Case) -> tuple[float, float | None]:
    """Seconds on the device of one forward and, if there is one, of one backward pass.

    The device waits until the host has queued the whole turn, so that launches are not part of the time; a
    contender that itself waits for the device is timed with its waiting.
    """
    wait = _waits.get(contender.name, _FIRST_WAIT)
    while True:
        start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        copy = case.next_copy()
        torch.cuda.synchronize()
        torch.cuda._sleep(int(wait * _CYCLES_A_SECOND))
        start.record()
        outputs = contender.forward(copy)
        middle.record()
        if contender.has_backward:
            contender.backward(copy, outputs)
        end.record()
        queued_in_time = not start.query()
        torch.cuda.synchronize()
        if queued_in_time or wait >= _LAST_WAIT:
            break
        wait *= 4
    _waits[contender.name] = wait
    backward = middle.elapsed_time(end) * 1e-3 if contender.has_backward else None
    return start.elapsed_time(middle) * 1e-3, backward
