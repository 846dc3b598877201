"""How long a launch takes, in closed form: blocks in turns, few warps, latencies, the reduction, launch gaps.

A lower bound with the latencies that stand on every way through a kernel: nothing here is measured by this
project. It imports nothing but the standard library, so that other code may use it or copy its constants.

Sources:
[guide]   CUDA C++ Programming Guide, "Compute Capabilities": 65,536 registers, 2,048 threads and 32 blocks a
          multiprocessor of 8.0, 9.0 and 10.0; 164 KB of shared memory (8.0) or 228 KB (9.0, 10.0), of which
          each block takes 1 KB for the system. Registers are given to warps by 256.
[sim]     Accel-Sim, configuration SM90_H100 (tuned to microbenchmarks of that GPU): a result can be used
          after 4 cycles (float32, integers), 8 (float64), 23 (special functions), 29 (shared memory), 41
          (L1).
[gh100]   Jarmusch et al., arXiv 2507.10789: a load that hits the L2 of a GH100 takes 273 cycles, one from
          DRAM 659 (read in a note that quotes the paper).
[h100]    Spector et al., "Look Ma, No Bubbles", Hazy Research, 2025: a kernel in a CUDA graph costs 1.3 us on
          an H100 besides its work.
[mpk]     "Mirage Persistent Kernel", arXiv 2512.22219: 0.8 us a kernel in a CUDA graph on a B200.
"""

from __future__ import annotations

import math
from typing import Protocol

WARP = 32
SCHEDULERS = 4  # of a multiprocessor, each with its own warps [guide]

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


class GpuLike(Protocol):
    """What the model asks of a GPU: clock in Hz, bandwidth in bytes a second, shared memory in bytes of a
    multiprocessor; graph_gap: the seconds that a kernel of a CUDA graph costs besides its work.
    """

    @property
    def multiprocessors(self) -> int: ...
    @property
    def clock(self) -> float: ...
    @property
    def bandwidth(self) -> float: ...
    @property
    def shared_memory(self) -> int: ...
    @property
    def graph_gap(self) -> float: ...


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


def launch_cycles(
    multiprocessors: int,
    *,
    slots_per_pair: float,
    slots_once: float,
    slots_start: float,
    rows: int,
    codes: int,
    lanes: int,
    blocks: int,
    blocks_resident: int,
    threads: int = 128,
) -> float:
    """Cycles from the first block's first instruction to the last one's last, on the busiest multiprocessor.

    Slots are those of one thread: slots_per_pair in the loop over codes, four of them at a time; slots_once
    for each of its rows besides; slots_start for what it does before its first row and after its last.
    `lanes` threads share a row, and the grid has `blocks` blocks, which take chunks of rows in turn.

    Blocks go to the multiprocessors round-robin, blocks_resident at a time, and each takes every blocks-th
    chunk of threads / lanes rows: some take one chunk more than others.
    """
    warps = threads / WARP / SCHEDULERS  # that a block adds to each scheduler
    slots_row = slots_per_pair * pairs_of_lane(codes, lanes) + slots_once
    chunks = math.ceil(rows / (threads // lanes))
    each, more = divmod(chunks, blocks)  # chunks of every block, and blocks that have one more
    here = math.ceil(blocks / multiprocessors)  # on the busiest multiprocessor
    more_here = math.ceil(more / multiprocessors)
    cycles = 0.0
    for first in range(0, here, blocks_resident):
        at_once = min(blocks_resident, here - first)
        busy = max(0, min(at_once, more_here - first))
        cycles += round_cycles(slots_start, at_once * warps, START_LATENCY)
        cycles += each * round_cycles(slots_row, at_once * warps, L2_LATENCY)
        cycles += round_cycles(slots_row, busy * warps, L2_LATENCY)
    return cycles


def launch_seconds(
    gpu: GpuLike,
    *,
    slots_per_pair: float,
    slots_once: float,
    slots_start: float,
    rows: int,
    codes: int,
    lanes: int,
    blocks: int,
    blocks_resident: int,
    threads: int = 128,
    bytes_moved: float = 0.0,
) -> float:
    """Seconds of one launch, see `launch_cycles`; bytes_moved: all that goes through DRAM."""
    cycles = launch_cycles(
        gpu.multiprocessors,
        slots_per_pair=slots_per_pair,
        slots_once=slots_once,
        slots_start=slots_start,
        rows=rows,
        codes=codes,
        lanes=lanes,
        blocks=blocks,
        blocks_resident=blocks_resident,
        threads=threads,
    )
    return max(cycles / gpu.clock, bytes_moved / gpu.bandwidth)


def reduce_seconds(
    gpu: GpuLike,
    parts: int,
    length: int,
    threads_per_block: int,
    lanes_over_parts: int,
    loads_in_flight: int = 4,
    adds_in_line: int | None = None,
) -> float:
    """Seconds of `reduce`: the sum of `parts` rows of `length` float64.

    lanes_over_parts: threads that share an output, each with every lanes_over_parts-th part; at the end their
    sums are added one after another. A thread has loads_in_flight loads on the way at once, and adds what
    they bring in order. adds_in_line: how many of those additions no load overlaps (default: all).
    """
    exposed = loads_in_flight if adds_in_line is None else adds_in_line
    blocks = math.ceil(length / (threads_per_block // lanes_over_parts))
    resident = max(1, min(MOST_THREADS // threads_per_block, MOST_BLOCKS))
    turns = math.ceil(blocks / (gpu.multiprocessors * resident))
    own = math.ceil(parts / lanes_over_parts)
    waits = math.ceil(own / loads_in_flight) * (L2_LATENCY + exposed * ADD64_LATENCY)
    ends = SHARED_LATENCY + (lanes_over_parts - 1) * ADD64_LATENCY if lanes_over_parts > 1 else 0
    port = parts * length * 8 / (L2_BYTES * min(blocks, gpu.multiprocessors))
    return (turns * (max(waits, port / turns) + ends)) / gpu.clock


def graph_seconds(gpu: GpuLike, kernels: list[float]) -> float:
    """Seconds of one replay of kernels that depend on one another: their own time, and a gap for each."""
    return sum(kernels) + len(kernels) * gpu.graph_gap
