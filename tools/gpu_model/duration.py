"""How long a launch takes, in closed form: blocks in turns, few warps, latencies, the reduction, launch gaps.

A lower bound with the latencies that stand on every way through a kernel: nothing here is measured by this
project.

Sources:
[guide]   CUDA C++ Programming Guide, "Compute Capabilities": 65,536 registers, 2,048 threads and 32 blocks a
          multiprocessor of 8.0, 9.0 and 10.0; 164 KB of shared memory (8.0) or 228 KB (9.0, 10.0), of which
          each block takes 1 KB for the system. Registers are given to warps by 256.
[sim]     Accel-Sim, configuration SM90_H100 (tuned to microbenchmarks of that GPU): a result can be used
          after 4 cycles (float32, integers), 8 (float64), 23 (special functions), 29 (shared memory), 41
          (L1).
[gh100]   Jarmusch et al., arXiv 2507.10789: a load that hits the L2 of a GH100 takes 273 cycles, one from
          DRAM 659 (read in a note that quotes the paper).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .specs import SCHEDULERS, WARP, Gpu

REGISTERS, REGISTER_UNIT = 65_536, 256  # of a multiprocessor; what a warp's are rounded up to [guide]
MOST_THREADS, MOST_BLOCKS = 2048, 32  # of a multiprocessor [guide]
SHARED_OF_SYSTEM = 1024  # bytes of each block [guide]

L1_LATENCY, SHARED_LATENCY, ADD64_LATENCY = 41, 29, 8  # cycles [sim]
L2_LATENCY = 273  # cycles [gh100]; taken for all GPUs, as inputs and parts have just been written
# Assumed: bytes a cycle that a multiprocessor takes from L2. All of them at once get less: a lower bound.
L2_BYTES = 64

# Cycles that a scheduler with w warps takes for one slot of each of them: SLOT_ALONE + w * SLOT_EACH, and no
# fewer than w. Where few warps are there, each waits for its own results. The two numbers are those of
# schedule.py for the loops of the float32 kernels with one to five warps, within 20 %.
SLOT_ALONE, SLOT_EACH = 1.4, 0.85

# What stands in a block's way before its first row: the codebook comes from L2 once and from L1 twice (its
# ends, its gaps, its copy in shared memory). Barriers are not counted.
START_LATENCY = L2_LATENCY + 2 * L1_LATENCY


class Slots(NamedTuple):
    """Instructions of one thread: for each pair in the loop over codes, for each of its rows besides, and for
    what it does before its first row and after its last.
    """

    pair: float
    row: float
    start: float


class Grid(NamedTuple):
    """Rows of so many codes, dealt out: `lanes` threads share a row, and `blocks` of so many threads take
    chunks of rows in turn. resident: blocks that a multiprocessor holds at once, see `blocks_resident`.
    """

    rows: int
    codes: int
    lanes: int
    blocks: int
    resident: int
    threads: int


class Reduce(NamedTuple):
    """How csrc/cuda/reduce.cu adds up, in blocks of so many threads.

    lanes: threads that share an output, each with every lanes-th part; at the end their sums are added one
    after another. A thread has loads_in_flight loads on the way at once, and adds what they bring in order.
    adds_in_line: how many of those additions no load overlaps.
    """

    threads: int
    lanes: int
    loads_in_flight: int
    adds_in_line: int

    @classmethod
    def parse(cls, text: str) -> Reduce:
        """From four numbers with commas between them. Raises ValueError."""
        numbers = [int(part) for part in text.split(",")]
        if len(numbers) != 4 or min(numbers) < 1 or numbers[1] > numbers[0]:
            raise ValueError(text)
        return cls(*numbers)


# 32 threads share an output and have eight loads on the way at a time, whose additions follow them.
REDUCE = Reduce(threads=128, lanes=32, loads_in_flight=8, adds_in_line=8)


def blocks_resident(shared_memory: int, *, threads: int, registers: int, shared: int) -> int:
    """Blocks that a multiprocessor holds at once. registers: of a thread; shared: bytes of a block."""
    warps = -(-threads // WARP)
    of_registers = REGISTERS // (REGISTER_UNIT * -(-registers * WARP // REGISTER_UNIT) * warps)
    of_shared = shared_memory // (shared + SHARED_OF_SYSTEM)
    return max(1, min(of_registers, of_shared, MOST_THREADS // (warps * WARP), MOST_BLOCKS))


def slot_cycles(warps: float) -> float:
    """Cycles that a scheduler with so many warps takes to issue one instruction of each of them."""
    return max(warps, SLOT_ALONE + SLOT_EACH * warps) if warps > 0 else 0.0


def round_cycles(slots: float, warps: float, latency: float) -> float:
    """Cycles for so many instructions of each warp of a scheduler, one of which waits `latency` for memory.

    The other warps hide the wait if they have enough to issue.
    """
    if warps <= 0:
        return 0.0
    return max(slots * slot_cycles(warps), slots * slot_cycles(1) + latency)


def pairs_of_lane(codes: int, lanes: int) -> int:
    """(row, code) pairs of each thread that shares a row: codes are dealt out four at a time."""
    return 4 * math.ceil(math.ceil(codes / 4) / lanes)


def launch_cycles(multiprocessors: int, slots: Slots, grid: Grid) -> float:
    """Cycles from the first block's first instruction to the last one's last, on the busiest multiprocessor.

    Blocks go to the multiprocessors round-robin, as many at a time as are resident, and each takes every
    blocks-th chunk of threads / lanes rows: some take one chunk more than others.
    """
    warps = grid.threads / WARP / SCHEDULERS  # that a block adds to each scheduler
    slots_row = slots.pair * pairs_of_lane(grid.codes, grid.lanes) + slots.row
    chunks = math.ceil(grid.rows / (grid.threads // grid.lanes))
    each, more = divmod(chunks, grid.blocks)  # chunks of every block, and blocks that have one more
    here = math.ceil(grid.blocks / multiprocessors)  # on the busiest multiprocessor
    more_here = math.ceil(more / multiprocessors)
    cycles = 0.0
    for first in range(0, here, grid.resident):
        at_once = min(grid.resident, here - first)
        busy = max(0, min(at_once, more_here - first))
        cycles += round_cycles(slots.start, at_once * warps, START_LATENCY)
        cycles += each * round_cycles(slots_row, at_once * warps, L2_LATENCY)
        cycles += round_cycles(slots_row, busy * warps, L2_LATENCY)
    return cycles


def launch_seconds(gpu: Gpu, slots: Slots, grid: Grid, bytes_moved: float = 0.0) -> float:
    """Seconds of one launch, see `launch_cycles`; bytes_moved: all that goes through DRAM."""
    cycles = launch_cycles(gpu.multiprocessors, slots, grid)
    return max(cycles / gpu.clock, bytes_moved / gpu.bandwidth)


def reduce_seconds(gpu: Gpu, parts: int, length: int, reduce: Reduce) -> float:
    """Seconds of `reduce`: the sum of `parts` rows of `length` float64."""
    blocks = math.ceil(length / (reduce.threads // reduce.lanes))
    resident = max(1, min(MOST_THREADS // reduce.threads, MOST_BLOCKS))
    turns = math.ceil(blocks / (gpu.multiprocessors * resident))
    own = math.ceil(parts / reduce.lanes)
    waits = math.ceil(own / reduce.loads_in_flight) * (L2_LATENCY + reduce.adds_in_line * ADD64_LATENCY)
    ends = SHARED_LATENCY + (reduce.lanes - 1) * ADD64_LATENCY if reduce.lanes > 1 else 0
    port = parts * length * 8 / (L2_BYTES * min(blocks, gpu.multiprocessors))
    return (turns * (max(waits, port / turns) + ends)) / gpu.clock


def graph_seconds(gpu: Gpu, kernels: list[float]) -> float:
    """Seconds of one replay of kernels that depend on one another: their own time, and a gap for each."""
    return sum(kernels) + len(kernels) * gpu.graph_gap
