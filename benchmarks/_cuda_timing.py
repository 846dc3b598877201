"""Timing on a CUDA device: events around work that is already queued, on inputs that are not in its cache."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import torch
from _case import Case
from _contenders import Contender

# Seconds that the device is held up so that the host can queue a turn: the first try, and the last.
_FIRST_WAIT, _LAST_WAIT = 1e-3, 64e-3
# Tries one after another in which the host's time has grown with the wait: it waits for the device.
_GROWN_TRIES = 2
# No GPU clock is faster, so that a wait in cycles is at least as long as asked.
_CYCLES_A_SECOND = 2.5e9

_waits: dict[str, float] = {}
_waiting: set[str] = set()


def waits_for_the_device(name: str) -> bool:
    """Whether a contender that has had a turn waits for the device inside its calls."""
    return name in _waiting


def time_turn(contender: Contender, case: Case) -> tuple[float, float | None]:
    """Seconds on the device of one forward and, if there is one, of one backward pass.

    The device waits until the host has queued the whole turn, so that launches are not part of the time. A
    contender that itself waits for the device never gets that far: it is timed with its waiting.
    """
    copy = case
    outputs = None

    def forward() -> None:
        nonlocal outputs, copy
        copy = case.next_copy()
        outputs = contender.forward(copy)

    def backward() -> None:
        contender.backward(copy, outputs)

    steps = [forward, backward] if contender.has_backward else [forward]
    seconds = time_queued(contender.name, steps)
    return seconds[0], seconds[1] if contender.has_backward else None


def time_queued(name: str, steps: Sequence[Callable[[], None]]) -> list[float]:
    """Seconds on the device of each of these steps, queued behind a wait that is long enough for `name`.

    The wait grows until the host queues all of them while it lasts. Where the host takes longer by as much as
    the wait grows, time and again, it waits for the device itself: then there is no wait any more.
    """
    wait = 0.0 if name in _waiting else _waits.get(name, _FIRST_WAIT)
    before: tuple[float, float] | None = None
    grown = 0
    while True:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)]
        torch.cuda.synchronize()
        begin = time.perf_counter()
        if wait:
            torch.cuda._sleep(int(wait * _CYCLES_A_SECOND))
        events[0].record()
        for step, event in zip(steps, events[1:], strict=True):
            step()
            event.record()
        host = time.perf_counter() - begin
        queued_in_time = not events[0].query()
        torch.cuda.synchronize()
        if queued_in_time or name in _waiting or wait >= _LAST_WAIT:
            break
        if before is not None:
            grown = grown + 1 if host - before[1] > 0.5 * (wait - before[0]) else 0
            if grown == _GROWN_TRIES:
                _waiting.add(name)
                break
        before = (wait, host)
        wait *= 4
    _waits[name] = wait
    return [a.elapsed_time(b) * 1e-3 for a, b in itertools.pairwise(events)]


def wall_turn(contender: Contender, case: Case) -> tuple[float, float | None, float | None]:
    """Seconds on the wall clock of forward, backward and both, from an idle device to an idle device."""
    copy = case.next_copy()
    begin = _idle()
    outputs = contender.forward(copy)
    middle = _idle()
    if not contender.has_backward:
        return middle - begin, None, None
    contender.backward(copy, outputs)
    end = _idle()
    outputs = contender.forward(copy)
    contender.backward(copy, outputs)
    return middle - begin, end - middle, _idle() - end


def _idle() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
