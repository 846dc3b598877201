"""How a kernel is launched: the one place that runs them, and the table of tile sizes.

Nothing is tuned at run time, so a call costs the same and rounds the same everywhere. The table follows from
three wishes. Threads: each of 128 in a program has one slot of a tile, two where rows are plenty, so that
what depends on the code alone is shared by two rows; more would cost registers and so occupancy. Few rows:
enough lanes a row that about 2^16 slots are at work, which is half of what an H100 holds at once; the paper's
batch, 3,072 rows, gets 16. Many rows, or few codes: fewer lanes a row, since bringing them together at the
end costs some ten operations for every doubling.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

WARPS = 4
THREADS = 32 * WARPS

# Slots at work below which rows are spread over more lanes, and the most lanes that a row gets.
BUSY_SLOTS = 2**16
MOST_LANES = 16
# From so many codes on, bringing lanes together is cheap beside the loop, and the sums of a slot are short.
MANY_CODES = 1024

# The most programs of a backward pass, as many as an H100 holds at once (5 on each of 132 multiprocessors, by
# their registers), and the most numbers that their partial sums of codebook gradients may be.
MOST_PROGRAMS = 660
MOST_PARTIALS = 2**23


class ForwardTile(NamedTuple):
    """Rows and blocks of four codes that a program looks at together; in all, THREADS slots or twice that."""

    rows: int
    blocks: int


class BackwardTile(NamedTuple):
    """Groups of blocks of four codes, rows, and blocks, that a program looks at together."""

    groups: int
    rows: int
    blocks: int


# kernel, programs, arguments by name (those that are constexpr included).
Launcher = Callable[[Any, int, dict[str, Any]], None]


def interpreted() -> bool:
    """Whether Triton is told to interpret kernels, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def forward_tile(rows: int, codes: int) -> ForwardTile:
    """The tile of kernels that have rows in lanes: 1, 4 or 16 lanes a row."""
    blocks = (codes + 3) // 4
    if codes >= MANY_CODES:
        lanes = MOST_LANES
    else:
        lanes = next((n for n in (1, 4) if n >= blocks or rows * n >= BUSY_SLOTS), MOST_LANES)
    slots = 2 * THREADS if rows * lanes >= 2 * BUSY_SLOTS else THREADS
    return ForwardTile(slots // lanes, lanes)


def backward_tile(codes: int, most_groups: int = 2) -> BackwardTile:
    """The tile of the kernel that has codes in lanes.

    Two groups: a lane's eight codes share what belongs to the row, and their sums still leave room for 20
    warps on a multiprocessor. One where float64 would not find registers for two.
    """
    blocks = (codes + 3) // 4
    groups = min(blocks, most_groups)
    lanes = next(n for n in (1, 2, 8, 16) if groups * n >= blocks or n == MOST_LANES)
    return BackwardTile(groups, THREADS // lanes, lanes)


def backward_programs(positions: int, codebooks: int, codes: int, tile: BackwardTile) -> int:
    """Programs for each codebook, each of which has a share of its `positions` rows."""
    steps = -(-positions // tile.rows)
    return max(1, min(steps, MOST_PROGRAMS // codebooks, MOST_PARTIALS // (WARPS * codebooks * codes)))


def compile_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """How Triton is to compile a kernel for these arguments.

    No fusion of multiplication and addition other than what the kernels ask for: it rounds the first step of
    a sum across lanes differently lane by lane. With float64, all the registers that there are: left to
    itself, the compiler spills a few to the stack. AMD's warps have 64 lanes, so that half as many make
    THREADS; where they have 32, a thread has twice the slots.
    """
    options = {"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": False}
    if torch.version.hip is not None:
        return options | {"num_warps": WARPS // 2}
    float64 = any(isinstance(v, torch.Tensor) and v.dtype == torch.float64 for v in arguments.values())
    return options | {"maxnreg": 255} if float64 else options


def on_device(kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
    """Run the kernel on the current stream of the tensors' device, compiled at the first call of its kind."""
    tensor = next(value for value in arguments.values() if isinstance(value, torch.Tensor))
    with torch.cuda.device_of(tensor):
        kernel[(programs,)](**arguments, **compile_options(arguments))


_launcher: Launcher = on_device


def launch(kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
    """Run `programs` programs of a kernel."""
    _launcher(kernel, programs, arguments)
