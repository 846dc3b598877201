"""The modelled times of a call on a GPU that is not here: forward, backward and reduce, with launch gaps."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path as FilePath
from typing import Any

from . import duration, sass
from .cost import Path, paths_of
from .duration import Reduce
from .launch import THREADS, Launch, launch_of, tabulates
from .sass import CodeError
from .specs import WARP, Gpu, bytes_per_row

SCALARS = (3072, 65_536, 1_048_576)
CODES = (16, 64, 256)
_KERNELS = {
    "forward": ("forward", "forward_z_float"),
    "tabulated forward": ("forward", "forward_z_table_float"),
    "backward": ("backward", "backward_z_float"),
}
# Of the launch that fills a table (posterior_float): two passes over the codes of a node by the threads of a
# warp, of some 25 slots a code and 250 besides; what a block does first is as in the other kernels.
_TABLE_NODES, _TABLE_SLOTS_PER_CODE, _TABLE_SLOTS = 350, 25, 250
_MANY = 1e9  # rows a thread: as good as no start


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The ordinary path of a kernel; registers of a thread, bytes of static shared memory of a block."""

    name: str
    path: Path
    registers: int
    shared: int


@functools.cache
def kernels_of(tree: FilePath, architecture: str) -> dict[str, Kernel]:
    """The float32 kernels on z of a checkout, compiled here. Raises CodeError."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for pass_, (file, name) in _KERNELS.items():
            source = tree / "csrc" / "cuda" / f"{file}.cu"
            cubin = sass.compile_cubin(source, architecture, tree / "csrc", FilePath(folder))
            registers, shared = sass.resources_of(cubin)[name]
            for function in sass.parse(sass.disassemble(cubin)):
                if function.name == name:
                    # The ordinary path takes least: the others are for wide codebooks and low temperatures.
                    path = min(paths_of(function), key=lambda p: p.work(64, 1, _MANY).slots)
                    found[pass_] = Kernel(name, path, registers, shared)
    missing = _KERNELS.keys() - found.keys()
    if missing:
        raise CodeError(f"{tree} has no kernel {_KERNELS[missing.pop()][1]}")
    return found


def kernel_seconds(
    kernel: Kernel, gpu: Gpu, rows: int, codes: int, launch: Launch, bytes_moved: float
) -> float:
    """Seconds of one launch of a kernel on z; bytes_moved: all that goes through DRAM."""
    lanes = launch.lanes
    work = kernel.path.work(codes, lanes, _MANY)
    # Where another pipe is busier than the issue of instructions, that one counts.
    bounds = work.bounds(gpu.rates)
    stretch = max(bounds.values()) / bounds["issue"]
    pairs = lanes * duration.pairs_of_lane(codes, lanes)
    slots = duration.Slots(
        pair=stretch * (work.noise + work.scan).total() / pairs,
        row=stretch * work.once.total() / lanes,
        start=kernel.path.start_slots(codes, lanes, THREADS),
    )
    shared = kernel.shared + launch.shared
    resident = duration.blocks_resident(
        gpu.shared_memory, threads=THREADS, registers=kernel.registers, shared=shared
    )
    grid = duration.Grid(rows, codes, lanes, launch.blocks, resident, THREADS)
    return duration.launch_seconds(gpu, slots, grid, bytes_moved)


def shape_table(tree: FilePath, gpu: Gpu, reduce: Reduce) -> list[dict[str, Any]]:
    """Microseconds of every shape, for the kernels and the geometry of a checkout. Raises CodeError."""
    kernels = kernels_of(tree, gpu.architecture)
    return [_shape(tree, gpu, reduce, kernels, rows, codes) for rows in SCALARS for codes in CODES]


def _shape(
    tree: FilePath, gpu: Gpu, reduce: Reduce, kernels: dict[str, Kernel], rows: int, codes: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"GPU": gpu.name, "scalars": f"{rows:,}", "codes": codes}
    blocks = tabulates(gpu, rows, codes, tree)
    chosen = {
        "forward": kernels["tabulated forward" if blocks else "forward"],
        "backward": kernels["backward"],
    }
    launches = {pass_: launch_of(kernel.name, gpu, rows, codes, tree) for pass_, kernel in chosen.items()}
    seconds = {
        pass_: kernel_seconds(
            chosen[pass_], gpu, rows, codes, launch, rows * bytes_per_row(f"{pass_}_z", codes)
        )
        for pass_, launch in launches.items()
    }
    table = _table_seconds(gpu, codes, blocks) if blocks else 0.0
    for pass_, launch in launches.items():
        row |= {f"{pass_} lanes": launch.lanes, f"{pass_} blocks": launch.blocks}
    added = duration.reduce_seconds(gpu, launches["backward"].blocks, codes, reduce)
    forward = [table, seconds["forward"]] if blocks else [seconds["forward"]]
    backward = [seconds["backward"], added]
    row["table"] = table * 1e6
    row |= {f"{pass_} kernel": value * 1e6 for pass_, value in seconds.items()}
    row["reduce"] = added * 1e6
    passes = {"forward": forward, "backward": backward, "both": forward + backward}
    return row | {name: duration.graph_seconds(gpu, kernels) * 1e6 for name, kernels in passes.items()}


def _table_seconds(gpu: Gpu, codes: int, blocks: int) -> float:
    """Seconds of the launch that fills the table of a codebook of normal codes."""
    warps = blocks * THREADS // WARP
    nodes = -(-_TABLE_NODES // warps) * (_TABLE_SLOTS + _TABLE_SLOTS_PER_CODE * -(-codes // WARP))
    cycles = duration.START_LATENCY + nodes * duration.slot_cycles(1)
    return cycles / gpu.clock


def table_assumptions(gpus: list[Gpu], reduce: Reduce) -> list[str]:
    """All that `shape_table` takes for granted, one sentence each."""
    sizes = ", ".join(f"{gpu.name} {gpu.shared_memory // 1024} KB" for gpu in gpus)
    gaps = ", ".join(f"{gpu.name} {gpu.graph_gap * 1e6:.1f} us" for gpu in gpus)
    return [
        (
            "Modelled, not measured: on an H200 the kernels took 1.3 to 1.5 times as long "
            "(benchmarks/results/nvidia_h200)."
        ),
        (
            "Instructions and registers are those of the kernels as nvcc compiles them, on the path that "
            "takes least: codebooks of ordinary width, temperatures that are not near zero."
        ),
        "lanes: threads that share a row. Lanes and blocks are those of the checkout's _cuda/geometry.py.",
        (
            "A multiprocessor holds as many blocks at once as their registers, threads and shared memory "
            f"allow: {duration.REGISTERS:,} registers, {duration.MOST_THREADS:,} threads, "
            f"{duration.MOST_BLOCKS} blocks, and {sizes} of shared memory, {duration.SHARED_OF_SYSTEM:,} "
            "bytes of which go with each block. Further blocks wait; the busiest multiprocessor counts."
        ),
        (
            f"A scheduler with w warps takes max(w, {duration.SLOT_ALONE} + {duration.SLOT_EACH} w) cycles "
            "for one instruction of each."
        ),
        (
            f"A load from L2 takes {duration.L2_LATENCY} cycles; inputs are taken to be there. Each row "
            f"waits for one, a block's start {duration.START_LATENCY} cycles; other warps hide what they "
            "can."
        ),
        (
            f"reduce: {reduce.threads} threads a block, {reduce.lanes} of them to an output, "
            f"{reduce.loads_in_flight} loads on the way at a time; an addition of float64 takes "
            f"{duration.ADD64_LATENCY} cycles."
        ),
        f"forward, backward and both: from a CUDA graph. A kernel costs besides its work: {gaps}.",
        "The sources of all numbers stand in tools/gpu_model.",
        *(f"{gpu.name}: {gpu.source}." for gpu in gpus),
    ]
