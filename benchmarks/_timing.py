"""Clocks, memory and interleaved rounds for the benchmark."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _cuda_timing
import torch
from _case import Case
from _contenders import Contender

FORWARD, BACKWARD, BOTH = "forward", "backward", "both"
PASSES = (FORWARD, BACKWARD, BOTH)
BUSY = 0.5  # a load average above which times may come out long


@dataclass
class Measured:
    """Seconds of each round by pass, and the peak of extra memory of one forward and backward in bytes.

    bounds: the seconds that the cost model allows a pass, where it knows the kernels and the device.
    On a GPU besides: wall, seconds of eager calls on the wall clock by pass; graph, seconds of calls replayed
    from a CUDA graph by what is different about them and by pass, or graph_missing, why there are none; and
    waits, whether the contender waits for the device inside its calls.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PASSES})
    peak_bytes: int | None = None
    bounds: dict[str, float] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)
    graph: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    graph_missing: str = ""
    waits: bool = False

    def wall_median(self, name: str) -> float | None:
        """Seconds of an eager call from an idle device to an idle device; None if not measured."""
        values = self.wall.get(name)
        return quantile(values, 0.5) if values else None

    def graph_median(self, name: str, variant: str = "") -> float | None:
        """Seconds of a replayed call; None if not measured. Backward is what it adds to the forward pass."""
        passes = self.graph.get(variant, {})
        if name == BACKWARD:
            forward, both = (self.graph_median(other, variant) for other in (FORWARD, BOTH))
            return None if forward is None or both is None else both - forward
        values = passes.get(name)
        return quantile(values, 0.5) if values else None

    def fraction_of_bound(self, name: str) -> float | None:
        """The modelled bound over the median; None where either is missing."""
        median = self.median(name)
        return self.bounds[name] / median if median and name in self.bounds else None

    def median(self, name: str) -> float | None:
        return self.quantile(name, 0.5)

    def quantile(self, name: str, q: float) -> float | None:
        return quantile(self.seconds[name], q) if self.seconds[name] else None

    @property
    def rounds(self) -> int:
        return len(self.seconds[FORWARD])


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile with linear interpolation between order statistics."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def time_turn(contender: Contender, case: Case) -> dict[str, float]:
    """Seconds of one forward and one backward pass; freeing their results is not timed."""
    if case.z.is_cuda:
        return _time_turn_cuda(contender, case)
    start = time.perf_counter()
    outputs = contender.forward(case)
    middle = time.perf_counter()
    if not contender.has_backward:
        return {FORWARD: middle - start}
    gradients = contender.backward(case, outputs)
    end = time.perf_counter()
    del outputs, gradients
    return {FORWARD: middle - start, BACKWARD: end - middle, BOTH: end - start}


def time_settled_turn(contender: Contender, case: Case) -> dict[str, float]:
    """An untimed turn, then the timed one.

    The first takes what the contender before has left: caches, threads, and memory that the C library gives
    back to the system only when the next one frees something. So each is timed in the state that it runs in
    on its own. Beside half a second none of that counts, and the first turn is the result.
    """
    first = time_turn(contender, case)
    return first if max(first.values()) > 0.5 else time_turn(contender, case)


def _time_turn_cuda(contender: Contender, case: Case) -> dict[str, float]:
    forward, backward = _cuda_timing.time_turn(contender, case)
    if backward is None:
        return {FORWARD: forward}
    return {FORWARD: forward, BACKWARD: backward, BOTH: forward + backward}


def interleave(
    turns: Sequence[Callable[[], Any]], rounds: int, seconds: float = math.inf, least: int = 1
) -> list[list[Any]]:
    """Call every turn once a round, in order, so that a slow second of the machine hits all of them alike.

    After so many seconds no further round begins, once there are `least`.
    """
    results: list[list[Any]] = [[] for _ in turns]
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    try:
        for number in range(rounds):
            if number >= least and time.perf_counter() - begin > seconds:
                break
            for turn, result in zip(turns, results, strict=True):
                result.append(turn())
    finally:
        gc.enable()
    return results


def peak_extra_bytes(run: Callable[[], Any], device: torch.device) -> tuple[int | None, Any]:
    """What `run` adds to the peak of memory (None where the system does not say), and what it returned.

    CUDA: torch's allocator counts. Linux: the high-water mark of the process's resident memory, after a reset
    and after the C library has given its free memory back, so that no earlier peak hides this one.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, result
    _trim_heap()
    if not _reset_high_water_mark():
        return None, run()
    before = _status_bytes("VmRSS")
    result = run()
    return max(0, _status_bytes("VmHWM") - before), result


def can_measure_memory(device: torch.device) -> bool:
    return device.type == "cuda" or _reset_high_water_mark()


def _trim_heap() -> None:
    if sys.platform.startswith("linux"):
        # With another C library than glibc the figure may come out smaller than it is.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no line {name}")


def available_bytes(device: torch.device) -> int | None:
    """Free memory of the device, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def load_average() -> float | None:
    """Processes that want a core, on average over the last minute, or None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Empty(torch.autograd.Function):
    """Does nothing: its cost is what PyTorch itself asks for any autograd function with two inputs."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        return z

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad, None


def call_overhead(contender: Contender, device: torch.device) -> tuple[float, float]:
    """Seconds of one eager forward call at 16 scalars, 64 codes, and of an empty torch.autograd.Function.

    Medians over interleaved blocks of calls: a single call is too short for one reading of the clock.
    """
    case = Case.make(16, 64, 0.7, device)
    contender.prepare(case)
    contender.forward(case)
    slow = time_turn(contender, case)[FORWARD] > 1e-3
    blocks, calls = (5, 10) if slow else (21, 50)

    def block(call: Callable[[], Any]) -> Callable[[], float]:
        def timed() -> float:
            _synchronize(device)
            start = time.perf_counter()
            for _ in range(calls):
                call()
            _synchronize(device)
            return (time.perf_counter() - start) / calls

        return timed

    turns = [block(lambda: contender.forward(case)), block(lambda: _Empty.apply(case.z, case.codebook))]
    interleave(turns, 2)
    ours, empty = interleave(turns, blocks)
    return quantile(ours, 0.5), quantile(empty, 0.5)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
