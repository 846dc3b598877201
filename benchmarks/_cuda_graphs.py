"""What a call takes when it is replayed from a CUDA graph: no host, but the gaps between kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from _case import Case
from _contenders import Contender
from _cuda_timing import time_queued, waits_for_the_device

_WARM_UPS = 3
_REPLAYS, _SAMPLES = 10, 7
# A capture keeps all that a call allocates. Beside arrays of this size launches do not count.
_MOST_PAIRS_IN_ARRAYS = 1 << 26

_refused: dict[str, str] = {}


def reason_against(contender: Contender, case: Case) -> str:
    """Why this contender is not captured, or an empty string."""
    if waits_for_the_device(contender.name):
        return "waits for the device, which a capture refuses"
    if contender.name in _refused:
        return _refused[contender.name]
    if contender.needs_arrays and case.pairs > _MOST_PAIRS_IN_ARRAYS:
        return f"writes large arrays; captured up to {_MOST_PAIRS_IN_ARRAYS:,} pairs"
    return ""


def refuse(contender: Contender, reason: str) -> None:
    """Never try to capture this contender again: a capture that fails may leave its generator behind."""
    _refused[contender.name] = reason
    # A generator that a broken capture has left in its capturing state would refuse to draw anything.
    with contextlib.suppress(Exception):
        device = torch.cuda.current_device()
        fresh = torch.Generator(torch.device("cuda", device)).graphsafe_get_state()
        torch.cuda.default_generators[device].graphsafe_set_state(fresh)


def replay_seconds(
    contender: Contender, case: Case, forward: Callable[[Case], Any]
) -> tuple[list[float], list[float]]:
    """Seconds on the device of a replayed forward pass, and of forward and backward: one for each sample.

    A sample is the mean of replays one after another, so a launch's own gaps are in it, and the inputs are
    where the replay before has left them. Empty without a backward pass. Raises what the capture raises.
    """

    def both(case: Case) -> None:
        contender.backward(case, forward(case))

    samples = []
    for call in (forward, both) if contender.has_backward else (forward,):
        graph = _capture(call, case)
        samples.append(_replays(graph))
        del graph
    torch.cuda.empty_cache()
    return samples[0], samples[1] if contender.has_backward else []


def _capture(call: Callable[[Case], Any], case: Case) -> Any:
    """A graph of one call, after some on a stream of their own, as PyTorch's notes on CUDA graphs ask for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            call(case)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call(case)
    return graph, kept


def _replays(captured: Any) -> list[float]:
    graph, _ = captured

    def replay() -> None:
        for _ in range(_REPLAYS):
            graph.replay()

    return [time_queued("replay", [replay])[0] / _REPLAYS for _ in range(_SAMPLES + 1)][1:]
