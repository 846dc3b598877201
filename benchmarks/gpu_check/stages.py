"""The table of stages: their order, their limits, what each runs and what it leaves behind."""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """name; limit: seconds after which it is killed; module: what `python -m MODULE DIR NAME LIMIT` runs."""

    name: str
    limit: float
    module: str
    about: str


# The first five fit in eight minutes and the others in seven: two calls of ten minutes take all of them.
STAGES = (
    Stage("facts", 30, "gpu_check.facts", "the machine and its software: facts.txt"),
    Stage("smoke", 100, "gpu_check.smoke", "every kernel once against the CPU backend: smoke.jsonl"),
    Stage("timings", 150, "gpu_check.timings", "kernels, public calls, sweeps, the textbook: timings.jsonl"),
    Stage("cuda", 140, "gpu_check.device_tests", "tests/gpu for backend cuda, in parallel: cuda.jsonl"),
    Stage("ncu", 60, "gpu_check.counters", "Nsight Compute's counters of the three main kernels: ncu.jsonl"),
    Stage("triton", 150, "gpu_check.device_tests", "tests/gpu for backend triton, in parallel: triton.jsonl"),
    Stage("sanitizer", 75, "gpu_check.sanitizer", "compute-sanitizer on a short smoke: sanitizer.jsonl"),
    Stage(
        "long",
        195,
        "gpu_check.last",
        "tests/gpu marked long, one after another, and the benchmark: long.jsonl",
    ),
)
# How many times longer they may take where the CPU stands in for a GPU, with fewer cores.
STAND_IN_FACTOR = 4
NAMES = tuple(stage.name for stage in STAGES)

# What share of the last stage its tests may take; the benchmark has the rest.
LONG_TESTS, COMPILE_TESTS = 0.2, 0.3

# Seconds without an answer after which a case of a smoke or a timing is given up.
SMOKE_PATIENCE, TIMING_PATIENCE, START_PATIENCE = 20.0, 40.0, 90.0
