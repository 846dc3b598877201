"""Three clocks: replays of a CUDA graph, the wall, and, for what cannot be captured, events around a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Step = Callable[[], Any]

# Each measurement takes about so long, so that many fit into a stage.
SECONDS = 0.06


def replay(step: Step) -> dict[str, float]:
    """Microseconds of a step on the device: a graph of several steps, replayed. Nothing of the host is in it.

    The steps of a graph run one behind the other on the same tensors, which the device's cache may hold.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
        once = _events(step)
    torch.cuda.current_stream().wait_stream(stream)
    steps = max(1, min(20, int(2e-3 / once)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(steps):
            step()
    graph.replay()
    torch.cuda.synchronize()
    replays = max(5, min(50, int(SECONDS / (once * steps))))
    times = [_events(graph.replay) / steps for _ in range(replays)]
    return _summary(times) | {"steps": steps}


def events(step: Step) -> dict[str, float]:
    """Microseconds between two events around a step; a host that is slower than the device shows in it."""
    for _ in range(2):
        step()
    once = _events(step)
    return _summary([_events(step) for _ in range(max(3, min(30, int(SECONDS / once))))])


def wall(step: Step, synchronize: Step) -> dict[str, float]:
    """Microseconds of a step on the host's clock, calls queued one behind the other; blocks of calls."""
    for _ in range(3):
        step()
    synchronize()
    start = time.perf_counter()
    step()
    synchronize()
    calls = max(1, min(100, int(SECONDS / 5 / (time.perf_counter() - start))))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            step()
        synchronize()
        times.append((time.perf_counter() - start) / calls)
    return _summary(times) | {"steps": calls}


def _events(step: Step) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    return max(1e-7, start.elapsed_time(end) * 1e-3)


def _summary(times: list[float]) -> dict[str, float]:
    return {
        "us": round(statistics.median(times) * 1e6, 3),
        "us_least": round(min(times) * 1e6, 3),
        "us_most": round(max(times) * 1e6, 3),
        "times": len(times),
    }
