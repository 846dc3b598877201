"""How a call is cut into blocks: threads that share a row, codes in shared memory, blocks, launches.

The choices follow from the shapes and from what the device can hold, by these rules:

- A grid of few turns has no more blocks than the device holds at once: a block goes on to further rows, and
  what it does before its first row is done once. All blocks take equally many turns. A grid of many turns has
  several times as many blocks, so that none works on alone at the end: the more, the shorter a block's start
  is beside its rows.
- One to 32 threads share a row (a power of two, `lanes`), as many as take the fewest cycles by `_cycles`.
  Many rows are a thread each: sharing one costs exchanges between its threads. Few rows are shared: one warp
  by itself waits for its own results.
- Where tensors of shape (rows, codes) are read or written, a row's threads take neighbouring codes, so as
  many share it as its codes allow: the accesses of a warp then lie side by side.
- The backward pass keeps a sum for each code and each row that a block works on at a time. As many threads
  share a row as are needed to fit all sums of the codebook, up to 2,048 codes, into SHARED bytes.
- The table of the posterior is made by a launch of its own, which many pairs of row and code must pay for.

The slots below (instructions of one thread) are those of the compiled float32 kernels for compute capability
9.0, counted by tools/gpu_model; of those that draw a code (csrc/cuda/drawn.cu) they are counted by
hand. Of the choices on an H200 none was more than 4 % slower than the best of the others that were tried
(benchmarks/results/nvidia_h200/sweep.csv), but for blocks of many turns, whose rule is from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

THREADS = 128  # a block; kThreads in csrc/cuda/arguments.h
SCHEDULERS = 4  # of a multiprocessor: each takes one warp of a block
SHARED = 48 * 1024 - 1024  # bytes of shared memory that every GPU gives without asking, less the kernels' own
SHARED_OF_A_BLOCK = 1024 + 192  # bytes besides: the system's, and the kernels' own
BLOCKS_AT_ONCE = {4: 5, 8: 2}  # on a multiprocessor, by the size of a number; kBlocksAtOnce in csrc/cuda
NOISE_BLOCKS = 16  # on a multiprocessor, of the kernels that go over numbers one by one
REDUCED_AT_ONCE = 4  # numbers of a block; kColumns in csrc/cuda/reduce.cu
MOST_STAGED = 2048  # codes of the forward pass
MOST_PARTS = 64 * 2**20  # bytes that the blocks' shares of the codebook's gradient may take
MOST_CODEBOOKS = 65_535  # gridDim.y
TABLE_NODES = 778  # that a codebook's table has memory for; kMostTableNodes in csrc/cuda/posterior.h

# Cycles that a scheduler with w warps takes for a slot of each: few warps wait for their own results. And
# cycles that a warp waits for memory at its start and with each row, unless the others hide it.
_SLOT_ALONE, _SLOT_EACH = 1.4, 0.85
_START_WAIT, _ROW_WAIT = 355, 273
# Slots of a pair of row and code that the table saves, and cycles that making it costs: a launch's gap of 1.3
# us, and about as long for the launch itself.
_TABLE_SAVES, _TABLE_CYCLES = 5, 5200
_ROWS_PER_NODE = 8  # at least, of a codebook, lest a node cost more than it saves
_STARTS = 20  # what a start weighs in the number of blocks, fitted to an H200
_MANY_TURNS = 8  # of a block, from which on a grid has more blocks than the device holds at once


class Device(NamedTuple):
    """What the choices depend on. shared: bytes of shared memory of a multiprocessor."""

    multiprocessors: int
    shared: int


class Geometry(NamedTuple):
    """lanes: threads that share a row. staged: codes in shared memory at a time. blocks: for each codebook.
    shared: bytes of dynamic shared memory. as_given: where in it the codes as given begin.
    """

    lanes: int
    staged: int
    blocks: int
    shared: int
    as_given: int


class Slots(NamedTuple):
    """Instructions of a thread: of a pair in the loop over codes, of a row besides, of each doubling of the
    threads that share it, and of what stands before the first row and after the last. Of the latter, to be
    divided by lanes: for every code that has sums in shared memory, and for every THREADS of them.
    """

    pair: float
    row: float
    doubling: float
    start: float
    start_code: float = 0
    start_codes: float = 0


_FORWARD = Slots(pair=34, row=250, doubling=20, start=520)
_BACKWARD = Slots(pair=40, row=230, doubling=5, start=705, start_code=7, start_codes=980)
_FORWARD_DRAWN = Slots(pair=20, row=330, doubling=20, start=520)
_BACKWARD_DRAWN = Slots(pair=40, row=330, doubling=40, start=705, start_code=7, start_codes=980)


def forward(
    rows: int,
    codes: int,
    codebooks: int,
    device: Device,
    wide: bool,
    real_size: int,
    tabulated: bool = False,
    drawn: bool = False,
) -> Geometry:
    """Of the forward pass and the search for the nearest code. wide: are there (rows, codes) tensors?
    tabulated: the pass that reads a table, which gives each row a thread. drawn: of an estimator that draws
    one code a row.
    """
    staged = min(_ceil(codes, 8), MOST_STAGED)
    shared = staged * _staged_code(real_size)
    at_once = _blocks_at_once(shared, codebooks, device, real_size)
    positions = -(-rows // codebooks)
    lanes = 1
    slots = _FORWARD_DRAWN if drawn else _FORWARD
    if not tabulated:
        lanes = choose_lanes(positions, codes, at_once, codebooks, device, wide, slots, 1)
    blocks = _blocks(positions, codes, lanes, at_once, slots)
    return Geometry(lanes, staged, blocks, shared, shared - staged * _as_given(real_size))


def backward(
    rows: int,
    codes: int,
    codebooks: int,
    device: Device,
    wide: bool,
    real_size: int,
    drawn: bool = False,
) -> Geometry:
    """Of the backward pass. wide, drawn: as for `forward`."""
    positions = -(-rows // codebooks)
    at_least = _power_of_two(min(-(-codes // 64), 32))
    # Fewer lanes have more sums: their shared memory is what at_least was chosen for.
    at_once = _blocks_at_once(_backward_shared(codes, at_least, real_size)[1], codebooks, device, real_size)
    slots = _BACKWARD_DRAWN if drawn else _BACKWARD
    lanes = choose_lanes(positions, codes, at_once, codebooks, device, wide, slots, at_least)
    staged, shared = _backward_shared(codes, lanes, real_size)
    at_once = _blocks_at_once(shared, codebooks, device, real_size)
    most = max(1, MOST_PARTS // (8 * codes * codebooks))
    blocks = _blocks(positions, codes, lanes, min(at_once, most), slots)
    return Geometry(lanes, staged, min(blocks, most), shared, shared - staged * _as_given(real_size))


def tabulates(rows: int, codes: int, codebooks: int, device: Device, real_size: int) -> bool:
    """Whether a forward pass without (rows, codes) tensors is to read its KL from a table."""
    saved = rows * codes * _TABLE_SAVES / (32 * SCHEDULERS * device.multiprocessors)
    pays = saved > _TABLE_CYCLES and rows >= _ROWS_PER_NODE * TABLE_NODES * codebooks
    return real_size == 4 and codes <= MOST_STAGED and pays


def table_blocks(codebooks: int, device: Device) -> int:
    """Blocks for each codebook that fill a table: a warp takes a node at a time."""
    needed = -(-TABLE_NODES // (THREADS // 32))
    return max(1, min(needed, device.multiprocessors // codebooks))


def tile_stride(lanes: int) -> int:
    """Numbers between the sums of one block of codes and the next; as in csrc/cuda/codebook_sums.h."""
    return 4 * THREADS // lanes + (32 // lanes if lanes > 1 else 0)


def launches(rows: int, row_offset: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose numbers have one high word each: what a launch takes at a time."""
    begin = 0
    while begin < rows:
        same_high = 2**32 - (row_offset + begin) % 2**32
        end = min(rows, begin + same_high)
        yield begin, end
        begin = end


def choose_lanes(
    positions: int,
    codes: int,
    at_once: int,
    codebooks: int,
    device: Device,
    wide: bool,
    slots: Slots,
    at_least: int,
) -> int:
    """How many threads share a row: the fewest cycles, and of equals the fewest threads."""
    most = min(_power_of_two(-(-codes // 4)), 32)
    if wide:
        return most
    choices = [lanes for lanes in (1, 2, 4, 8, 16, 32) if at_least <= lanes <= most]
    return min(
        choices or [most],
        key=lambda lanes: _cycles(positions, codes, lanes, at_once, codebooks, device, slots),
    )


def _cycles(
    positions: int, codes: int, lanes: int, at_once: int, codebooks: int, device: Device, slots: Slots
) -> float:
    """Modelled cycles of a launch: as long as its longest block, whose warps share the schedulers with those
    of the other blocks on its multiprocessor.
    """
    chunks = -(-positions * lanes // THREADS)
    blocks = _equal_blocks(chunks, at_once)
    warps = -(-blocks * codebooks // device.multiprocessors)  # of each scheduler
    start, row = _slots_of(codes, lanes, slots)
    return _waited(start, warps, _START_WAIT) + -(-chunks // blocks) * _waited(row, warps, _ROW_WAIT)


def _slots_of(codes: int, lanes: int, slots: Slots) -> tuple[float, float]:
    """Of a thread: what stands before its first row and after the last, and a row."""
    tiles = -(-codes // 4)
    pairs = 4 * -(-tiles // lanes)
    row = slots.pair * pairs + slots.row + slots.doubling * (lanes.bit_length() - 1)
    sums = slots.start_code * codes + slots.start_codes * -(-codes // THREADS)
    return slots.start + sums / lanes, row


def _waited(slots: float, warps: int, wait: int) -> float:
    """Cycles for so many slots of each warp of a scheduler, one of which waits."""
    alone = _SLOT_ALONE + _SLOT_EACH
    return max(slots * max(warps, _SLOT_ALONE + _SLOT_EACH * warps), slots * alone + wait)


def _blocks_at_once(shared: int, codebooks: int, device: Device, real_size: int) -> int:
    """For each codebook, the blocks that the device holds."""
    of_shared = device.shared // (shared + SHARED_OF_A_BLOCK)
    resident = max(1, min(BLOCKS_AT_ONCE[real_size], of_shared))
    return max(1, resident * device.multiprocessors // codebooks)


def _blocks(positions: int, codes: int, lanes: int, at_once: int, slots: Slots) -> int:
    """For each codebook. at_once: that the device holds."""
    chunks = -(-positions * lanes // THREADS)
    if chunks < _MANY_TURNS * at_once:
        return _equal_blocks(chunks, at_once)
    # n times as many cost n starts, and take 1 / n of the time in which the last blocks work on alone.
    start, row = _slots_of(codes, lanes, slots)
    turns = chunks / at_once
    times = round(math.sqrt(turns * row / (_STARTS * start)))
    return min(chunks, at_once * max(1, times))


def _equal_blocks(chunks: int, at_once: int) -> int:
    """As few blocks as take no more turns than at_once of them would."""
    chunks = max(1, chunks)
    turns = -(-chunks // at_once)
    return -(-chunks // turns)


def _staged_code(real_size: int) -> int:
    """Bytes of shared memory: a quarter of what four codes share of Philox, and the code once or twice."""
    return 4 + real_size + _as_given(real_size)


def _as_given(real_size: int) -> int:
    """Bytes of a code as given, where the scorer may want another number."""
    return 4 if real_size == 4 else 0


def _backward_shared(codes: int, lanes: int, real_size: int) -> tuple[int, int]:
    """Codes in shared memory at a time, and its bytes."""
    per_block_of_codes = 4 * _staged_code(real_size) + real_size * tile_stride(lanes)
    fitting = SHARED // per_block_of_codes // lanes * lanes * 4
    parts = -(-codes // fitting)
    staged = _ceil(-(-codes // parts), 4 * lanes if parts > 1 else 4)
    return staged, staged // 4 * per_block_of_codes


def _power_of_two(x: int) -> int:
    """The next one from x on."""
    return 1 << max(x - 1, 0).bit_length()


def _ceil(x: int, step: int) -> int:
    return -(-x // step) * step
