"""How a call is cut into blocks: threads that share a row, codes in shared memory, blocks, launches.

The choices follow from the shapes and the number of multiprocessors alone, by these rules:

- A row goes to one thread where rows are many. Several threads share one (a power of two, `lanes`) until
  there are THREADS_WANTED of them for each multiprocessor, but no more than there are blocks of four codes:
  with fewer threads the latency of the logarithms shows.
- Where tensors of shape (rows, codes) are read or written, a row's threads take neighbouring codes, so
  as many share it as its codes allow: the accesses of a warp then lie side by side.
- The backward pass keeps a sum for each code and each row that a block works on at a time. As many threads
  share a row as are needed to fit all sums of the codebook, up to 2,048 codes, into SHARED bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

THREADS = 128  # a block; kThreads in csrc/cuda/arguments.h
SHARED = 48 * 1024 - 1024  # bytes of shared memory that every GPU gives without asking, less the kernels' own
THREADS_WANTED = 1024  # for each multiprocessor
BLOCKS_WANTED = 16  # at most, for each multiprocessor: a block that comes back for more rows stages once
MOST_STAGED = 2048  # codes of the forward pass
MOST_PARTS = 64 * 2**20  # bytes that the blocks' shares of the codebook's gradient may take
MOST_CODEBOOKS = 65_535  # gridDim.y


class Geometry(NamedTuple):
    """lanes: threads that share a row. staged: codes in shared memory at a time. blocks: for each codebook.
    shared: bytes of dynamic shared memory.
    """

    lanes: int
    staged: int
    blocks: int
    shared: int


def forward(
    rows: int, codes: int, codebooks: int, multiprocessors: int, wide: bool, real_size: int
) -> Geometry:
    """Of the forward pass and the search for the nearest code. wide: are there (rows, codes) tensors?"""
    lanes = _lanes(rows, codes, multiprocessors, wide, 1)
    staged = min(_ceil(codes, 4), MOST_STAGED)
    shared = staged // 4 * 16 + staged * real_size
    return Geometry(lanes, staged, _blocks(rows, codebooks, lanes, multiprocessors), shared)


def backward(
    rows: int, codes: int, codebooks: int, multiprocessors: int, wide: bool, real_size: int
) -> Geometry:
    """Of the backward pass."""
    lanes = _lanes(rows, codes, multiprocessors, wide, -(-codes // 64))
    per_block_of_codes = 16 + real_size * (4 + tile_stride(lanes))
    fitting = SHARED // per_block_of_codes // lanes * lanes * 4
    parts = -(-codes // fitting)
    staged = _ceil(-(-codes // parts), 4 * lanes if parts > 1 else 4)
    blocks = _blocks(rows, codebooks, lanes, multiprocessors)
    blocks = max(1, min(blocks, MOST_PARTS // (8 * codes * codebooks)))
    return Geometry(lanes, staged, blocks, staged // 4 * per_block_of_codes)


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


def _lanes(rows: int, codes: int, multiprocessors: int, wide: bool, at_least: int) -> int:
    blocks_of_codes = -(-codes // 4)
    wanted = blocks_of_codes if wide else -(-THREADS_WANTED * multiprocessors // max(rows, 1))
    return _power_of_two(min(max(wanted, at_least), blocks_of_codes, 32))


def _blocks(rows: int, codebooks: int, lanes: int, multiprocessors: int) -> int:
    needed = -(-rows // codebooks) * lanes
    return max(1, min(-(-needed // THREADS), BLOCKS_WANTED * multiprocessors // min(codebooks, 16)))


def _power_of_two(x: int) -> int:
    """The next one from x on, up to 32."""
    return min(1 << max(x - 1, 0).bit_length(), 32)


def _ceil(x: int, step: int) -> int:
    return -(-x // step) * step
