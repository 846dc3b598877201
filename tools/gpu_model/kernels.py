"""Tables of single kernels, a line for each path: issue slots, times on GPUs, the figures of the project."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .cost import Modelled, Path, Work, model
from .launch import Launch
from .sass import PIPES, CodeError
from .specs import (
    BYTES,
    GPUS,
    Gpu,
    arrays_moved,
    bytes_per_row,
    kind_of,
    textbook_floor,
    textbook_operations,
)

_SLOTS_FORWARD, _SLOTS_BOTH, _TIMES_AS_FAST = 48.0, 105.0, 20.0


@dataclass(frozen=True)
class Entry:
    """A path of a kernel, how it is launched on a GPU, and what it costs at the asked size."""

    kernel: str
    gpu: Gpu
    path: Path
    launch: Launch
    work: Work


def cost_table(entries: list[Entry]) -> list[dict[str, Any]]:
    """Issue slots per (row, code), by place and by pipe: a line for each code, whatever GPUs run it."""
    rows = []
    for entry in {(e.kernel, e.path.number, e.gpu.architecture): e for e in entries}.values():
        work, codes = entry.work, entry.work.codes
        rows.append(
            {
                "kernel": entry.kernel,
                "code": entry.gpu.architecture,
                "path": entry.path.number,
                "loops": entry.path.description,
                "noise": work.noise.total() / codes,
                "scan": work.scan.total() / codes,
                "once": work.once.total() / codes,
                "once, least": work.least_once / codes,
                "start": work.start.total() / codes,
                "slots": work.slots,
                **{pipe: work.total[pipe] / codes for pipe in PIPES},
            }
        )
    return rows


def time_table(entries: list[Entry], rows: int) -> list[dict[str, Any]]:
    """Modelled times beside the DRAM floor of the eager textbook."""
    table = []
    for entry in entries:
        result, floor = _modelled(entry, rows)
        bounds = entry.work.bounds(entry.gpu.rates)
        second, first = sorted(bounds, key=bounds.__getitem__)[-2:]
        table.append(
            {
                "kernel": entry.kernel,
                "path": entry.path.number,
                "GPU": entry.gpu.name,
                "threads a row": entry.launch.lanes,
                "rows a thread": float(entry.launch.rows_a_thread),
                "bound by": result.bound,
                "bound, slots": bounds[first],
                "next": f"{second} {bounds[second]:.1f}",
                "DRAM us": result.memory_seconds * 1e6,
                "modelled us": result.seconds * 1e6,
                "textbook DRAM floor us": floor * 1e6,
                "times as fast": floor / result.seconds,
            }
        )
    return table


def _modelled(entry: Entry, rows: int) -> tuple[Modelled, float]:
    kind = kind_of(entry.kernel)
    traffic = bytes_per_row(kind, entry.work.codes)
    result = model(entry.work, entry.gpu, rows, entry.launch.lanes, traffic)
    return result, textbook_floor(textbook_operations(kind), rows, entry.work.codes, entry.gpu)


def assumptions(entries: list[Entry]) -> list[str]:
    """All that the model takes for granted, one sentence each."""
    kinds = sorted({kind_of(entry.kernel) for entry in entries})
    gpus = list(dict.fromkeys(entry.gpu for entry in entries))
    lines = [
        "Modelled, not measured: a lower bound of the time, with enough warps in flight to hide latencies.",
        "A multiprocessor issues 4 warp instructions a clock, one a scheduler; predicated-off ones count.",
        *(f"{gpu.name}: {gpu.source}." for gpu in gpus),
    ]
    for capability in sorted({gpu.capability for gpu in gpus}, key=float):
        rates = next(gpu.rates for gpu in gpus if gpu.capability == capability)
        lines.append(
            f"Compute capability {capability}, results per clock per multiprocessor: "
            f"float32 {rates.float32}, integer multiply {rates.integer_multiply}, ALU {rates.alu}, "
            f"special functions {rates.special}, float64 {rates.float64}, shuffle {rates.shuffle}, "
            f"loads and stores {rates.load_store}, shared memory {rates.shared_bytes} bytes (CUDA "
            "programming guide, throughput of native arithmetic instructions; white papers for loads and "
            "stores)."
        )
    lines += [
        (
            "Which pipe executes what: Nsight Compute documentation, pipelines. Integer multiplications "
            "share the float32 pipe. IMAD.WIDE is taken at the rate of IMAD, the only one that is published."
        ),
        "Uniform instructions and constants cost their issue slots only: no rate is published for them.",
        "Shared memory: 4 bytes a thread and clock in 32 lanes; a broadcast is taken to save nothing.",
        (
            "noise: the loops that draw it; scan: passes over the codes without it, as for the nearest code. "
            "A turn counts the longest way through its loop."
        ),
        (
            "once: the longest way of a row through the rest (least: the shortest), with one turn of every "
            "loop there and no barrier: shared memory holds the codebook. start: what a thread does before "
            "its first row and after its last, shared by its rows. Subroutines for rare cases are left out."
        ),
        "Threads a row, rows a thread: as the CUDA backend (_cuda/geometry.py) would choose, or as asked.",
        "Whole warps, spread evenly over the schedulers. Launching takes no time.",
        *(f"DRAM bytes a row of {kind}: {BYTES[kind]}." for kind in kinds),
    ]
    for operations in {textbook_operations(kind): None for kind in kinds}:
        names = ", ".join(f"{o.name} {o.reads}+{o.writes}" for o in operations)
        lines.append(
            f"Eager textbook, arrays of N x K float32 read + written: {names}; {arrays_moved(operations)} in "
            "all, each through DRAM once, nothing kept in L2."
        )
    return lines


def bars(names: Sequence[str], entries: list[Entry], rows: int) -> tuple[list[dict[str, Any]], list[Entry]]:
    """The project's figures for a forward and a backward kernel on the H100, and what was found of them.

    names: of the two, as REGEX or REGEX#PATH. Raises CodeError unless each is one path of one kernel.
    """
    gpu = GPUS["H100"]
    chosen = []
    for text in names:
        pattern, _, number = text.partition("#")
        found = [e for e in entries if re.search(pattern, e.kernel) and number in ("", str(e.path.number))]
        if len(found) != 1:
            there = "; ".join(f"{e.kernel} #{e.path.number}: {e.path.description}" for e in found or entries)
            raise CodeError(
                f"--bars was given {text!r}, which must be one path of one kernel. There are: {there}"
            )
        chosen.append(found[0])
    forward, backward = chosen
    codes = forward.work.codes
    result, floor = _modelled(forward, rows)
    both = "forward and backward"
    figures = (
        ("forward, issue slots per (row, code) in loops", forward.work.loop_slots, _SLOTS_FORWARD),
        ("forward, issue slots per (row, code) in all", forward.work.slots, _SLOTS_FORWARD),
        (
            f"{both}, issue slots per (row, code) in loops",
            forward.work.loop_slots + backward.work.loop_slots,
            _SLOTS_BOTH,
        ),
        (
            f"{both}, issue slots per (row, code) in all",
            forward.work.slots + backward.work.slots,
            _SLOTS_BOTH,
        ),
    )
    table = [
        {
            "figure": f"{gpu.architecture}, {codes} codes: {what}",
            "modelled": value,
            "bar": f"at most {bar:g}",
            "": "met" if value <= bar else "missed",
        }
        for what, value, bar in figures
    ]
    ratio = floor / result.seconds
    what = "forward, times as fast as the DRAM floor of the eager textbook"
    table.append(
        {
            "figure": f"{gpu.name}, {rows:,} rows, {codes} codes: {what}",
            "modelled": ratio,
            "bar": f"at least {_TIMES_AS_FAST:g}",
            "": "met" if ratio >= _TIMES_AS_FAST else "missed",
        }
    )
    return table, chosen


def csv_rows(costs: list[dict[str, Any]], times: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a kernel, path and GPU, with the columns of both tables."""
    cost_of = {(row["kernel"], row["path"], row["code"]): row for row in costs}
    return [
        {**cost_of[row["kernel"], row["path"], GPUS[row["GPU"]].architecture], **row, "kind": "modelled"}
        for row in times
    ]
