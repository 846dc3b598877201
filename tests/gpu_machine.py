"""A machine with a GPU that needs neither: a host and a device with one clock, events, and CUDA graphs."""

import contextlib
import time
from types import SimpleNamespace

import _cuda_graphs
import _cuda_timing
import _grid
import _timing
import torch

LAUNCH = 5e-6  # seconds of the host to start a kernel or a graph


class Machine:
    """What the host does takes `host` seconds; a `kernel` is queued, and the device works on it later.

    Stands in for torch.cuda and for the clock of the benchmark.
    """

    def __init__(self, monkeypatch):
        self.now = self.ready = 0.0
        self.recording = None
        self.sleeps, self.captures = [], 0
        machine = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.time = machine.ready = max(machine.ready, machine.now)

            def query(self):
                return self.time <= machine.now

            def elapsed_time(self, other):
                return (other.time - self.time) * 1e3

        class Graph:
            def replay(self):
                machine.host(LAUNCH)
                for seconds in self.kernels:
                    machine.kernel(seconds, launch=0)

        @contextlib.contextmanager
        def capture(graph):
            machine.captures += 1
            graph.kernels = machine.recording = []
            try:
                yield
            finally:
                machine.recording = None

        stream = SimpleNamespace(wait_stream=lambda other: None)
        fakes = {
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": capture,
            "Stream": lambda: stream,
            "stream": lambda stream: contextlib.nullcontext(),
            "current_stream": lambda: stream,
            "synchronize": self.synchronize,
            "_sleep": self.sleep,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda device: None,
            "memory_allocated": lambda device: 0,
            "max_memory_allocated": lambda device: 2**20,
            "mem_get_info": lambda device: (60 * 2**30, 80 * 2**30),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        clock = SimpleNamespace(**{**vars(time), "perf_counter": lambda: self.now})
        for module in (_cuda_timing, _grid, _timing):
            monkeypatch.setattr(module, "time", clock)
        collector = SimpleNamespace(collect=lambda: self.host(0.1), disable=lambda: None, enable=lambda: None)
        monkeypatch.setattr(_timing, "gc", collector)
        for module, name, empty in (
            (_cuda_timing, "_waits", {}),
            (_cuda_timing, "_waiting", set()),
            (_cuda_graphs, "_refused", {}),
        ):
            monkeypatch.setattr(module, name, empty)
        monkeypatch.setattr(
            _grid.Case, "make", lambda scalars, codes, temperature, device: Case(scalars, codes)
        )

    def host(self, seconds):
        self.now += seconds

    def kernel(self, seconds, launch=LAUNCH):
        self.host(launch)
        if self.recording is not None:
            self.recording.append(seconds)
        else:
            self.ready = max(self.ready, self.now) + seconds

    def synchronize(self, _=None):
        if self.recording is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.now = max(self.now, self.ready)

    def sleep(self, cycles):
        self.sleeps.append(cycles / 2.5e9)
        self.kernel(cycles / 2.5e9, launch=0)


class Case:
    """A shape without numbers."""

    z = SimpleNamespace(is_cuda=True)

    def __init__(self, scalars, codes):
        self.scalars, self.codes, self.pairs = scalars, codes, scalars * codes

    def next_copy(self):
        return self
