"""The time of a training step, all kinds of a case in turn in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from _timing import interleave
from torch import Tensor

from adoption.case import Case
from adoption.train import seed_all, stepper

WARM_UP = 3
LEAST_ROUNDS = 5
MOST_ROUNDS = 1_000


def time_steps(case: Case, seconds: float, seed: int = 0) -> dict[str, dict[str, float]]:
    """Make every kind for the same seed, and let them take a step each in turn for so many seconds.

    Returns, for each kind, `milliseconds`, the median of a step; `times_as_fast`, the median over the rounds
    of the first kind's time in a round over this one's; and `rounds`.
    """
    turns = []
    for kind in case.kinds:
        seed_all(seed)
        turns.append(partial(_seconds, stepper(case, case.make(kind), seed)))
    interleave(turns, WARM_UP)
    times = interleave(turns, MOST_ROUNDS, seconds, LEAST_ROUNDS)
    return {
        kind: {
            "milliseconds": 1e3 * statistics.median(own),
            "times_as_fast": statistics.median(
                first / each for first, each in zip(times[0], own, strict=True)
            ),
            "rounds": len(own),
        }
        for kind, own in zip(case.kinds, times, strict=True)
    }


def _seconds(step: Callable[[float], Tensor]) -> float:
    begin = time.perf_counter()
    step(0.0)
    return time.perf_counter() - begin
