"""Models what the GPU kernels cost, from their compiled code: no GPU is needed, and nothing is measured.

    python tools/gpu_model                          the CUDA kernels, compiled here by nvcc
    python tools/gpu_model --code FILE...           cubins, or libraries that hold some
    python tools/gpu_model --bars FORWARD BACKWARD  two kernels against the figures of the project
    python tools/gpu_model --table                  forward, backward and reduce at nine shapes

The loops over codes are found in the disassembly by Philox's multiplications, their instructions are counted
by pipe, and the busiest pipe, the issue slots or the DRAM give the time. A kernel with several such loops has
several paths (with weights or without, after a pass for the nearest code or not): all are listed. The kernels
of csrc/cuda/drawn.cu draw one number a row, and are not modelled.

--table adds what duration.py knows: blocks that come in turns, few warps, latencies, and the gaps between
the kernels of a CUDA graph. --tree models another checkout, to set a state before beside one after.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from . import sass
from .calls import REDUCE, Reduce, shape_table, table_assumptions
from .cost import Modelled, Path, Work, model, paths_of
from .launch import ROOT, Launch, launch_of
from .output import show, write_rows
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


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--code", nargs="+", type=FilePath, metavar="FILE", help="cubins or libraries that hold some"
    )
    parser.add_argument(
        "--source", nargs="+", type=FilePath, metavar="FILE", help="CUDA sources (default: csrc/cuda/*.cu)"
    )
    parser.add_argument("--kernel", default="", metavar="REGEX", help="only kernels whose name matches")
    parser.add_argument("--path", type=int, help="only the path of this number of each kernel")
    parser.add_argument("--gpu", nargs="+", default=list(GPUS), choices=list(GPUS), help="default: all")
    parser.add_argument("--rows", type=int, default=1_048_576, help="default: 1,048,576")
    parser.add_argument("--codes", type=int, default=64, help="default: 64")
    parser.add_argument(
        "--lanes", type=int, help="threads that share a row (default: as the CUDA backend launches, else 1)"
    )
    parser.add_argument(
        "--rows-a-thread", type=int, help="rows that share a thread's start (default: likewise)"
    )
    parser.add_argument(
        "--bars",
        nargs=2,
        metavar=("FORWARD", "BACKWARD"),
        help="the project's figures for sm_90, for two kernels given as REGEX or REGEX#PATH",
    )
    parser.add_argument(
        "--table", action="store_true", help="instead: forward, backward and reduce, with all that takes time"
    )
    parser.add_argument(
        "--tree", type=FilePath, default=ROOT, metavar="DIR", help="--table of another checkout"
    )
    parser.add_argument(
        "--reduce",
        type=Reduce.parse,
        default=REDUCE,
        metavar="THREADS,LANES,LOADS,ADDS",
        help="--table: threads of a block of reduce, those that share an output, loads on the way at a time, "
        f"additions of theirs that no load overlaps (default: {REDUCE})",
    )
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("--csv", type=FilePath, metavar="FILE", help="also write the tables to FILE")
    options = parser.parse_args(argv)
    for name in ("rows", "codes", "lanes", "rows-a-thread"):
        value = getattr(options, name.replace("-", "_"))
        if value is not None and not 1 <= value < 2**62:
            parser.error(f"--{name} was {value}; it may be 1 or more")
    if options.lanes is not None and options.lanes > 32:
        parser.error(f"--lanes was {options.lanes}; a row is shared within a warp: it may be 1 to 32")
    if options.code and options.source:
        parser.error("--code and --source were both given; it may be one of them")
    try:
        re.compile(options.kernel)
    except re.error as error:
        parser.error(f"--kernel was {options.kernel!r}; it may be a regular expression ({error})")
    return options


def load(options: argparse.Namespace, gpus: list[Gpu]) -> tuple[list[Entry], list[str]]:
    """All paths of the kernels asked for, and a sentence for each kernel that is not understood.

    Raises CodeError if there is none.
    """
    architectures = tuple(dict.fromkeys(gpu.architecture for gpu in gpus))
    entries, refused = [], []
    with tempfile.TemporaryDirectory() as folder:
        scratch = FilePath(folder)
        if options.code:
            cubins = [c for file in options.code for c in sass.cubins_of(file, architectures, scratch)]
        else:
            sources = options.source or sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
            if not sources:
                raise CodeError("csrc/cuda holds no CUDA sources: give --source or --code")
            cubins = [
                sass.compile_cubin(source, architecture, ROOT / "csrc", scratch)
                for architecture in architectures
                for source in sources
            ]
        listings = [sass.disassemble(cubin) for cubin in cubins]
    for function in (function for listing in listings for function in sass.parse(listing)):
        name = sass.readable(function.name)
        if function.architecture not in architectures or not re.search(options.kernel, name):
            continue
        if "_drawn_" in name:
            continue
        try:
            entries += [
                _entry(name, gpu, path, options)
                for path in paths_of(function)
                if options.path in (None, path.number)
                for gpu in gpus
                if gpu.architecture == function.architecture
            ]
        except CodeError as error:
            refused.append(f"{name}, {function.architecture}: {error}")
    if not entries:
        raise CodeError(
            "; ".join(refused)
            or f"no kernel that draws noise, of a name that matches {options.kernel!r}, was found for "
            + ", ".join(architectures)
        )
    return entries, refused


def _entry(kernel: str, gpu: Gpu, path: Path, options: argparse.Namespace) -> Entry:
    usual = launch_of(kernel, gpu, options.rows, options.codes)
    launch = usual._replace(
        lanes=options.lanes or usual.lanes, rows_a_thread=options.rows_a_thread or usual.rows_a_thread
    )
    return Entry(kernel, gpu, path, launch, path.work(options.codes, launch.lanes, launch.rows_a_thread))


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


def bars(options: argparse.Namespace, entries: list[Entry]) -> tuple[list[dict[str, Any]], list[Entry]]:
    """The project's figures for two kernels on the H100. Raises CodeError unless each name is one path."""
    gpu = GPUS["H100"]
    chosen = []
    for text in options.bars:
        pattern, _, number = text.partition("#")
        found = [e for e in entries if re.search(pattern, e.kernel) and number in ("", str(e.path.number))]
        if len(found) != 1:
            names = "; ".join(f"{e.kernel} #{e.path.number}: {e.path.description}" for e in found or entries)
            raise CodeError(
                f"--bars was given {text!r}, which must be one path of one kernel. There are: {names}"
            )
        chosen.append(found[0])
    forward, backward = chosen
    result, floor = _modelled(forward, options.rows)
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
            "figure": f"{gpu.architecture}, {options.codes} codes: {what}",
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
            "figure": f"{gpu.name}, {options.rows:,} rows, {options.codes} codes: {what}",
            "modelled": ratio,
            "bar": f"at least {_TIMES_AS_FAST:g}",
            "": "met" if ratio >= _TIMES_AS_FAST else "missed",
        }
    )
    return table, chosen


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    gpus = [GPUS[name] for name in ("H100",) if options.bars] or [GPUS[name] for name in options.gpu]
    figures: list[dict[str, Any]] = []
    if options.table:
        return _print_table(options, gpus)
    try:
        entries, refused = load(options, gpus)
        if options.bars:
            figures, entries = bars(options, entries)
    except CodeError as error:
        print(f"gpu_model: {error}", file=sys.stderr)
        return 2
    tables = [cost_table(entries), time_table(entries, options.rows)]
    print(f"{options.rows:,} rows, {options.codes} codes. All figures are modelled.\n")
    titles = ("Issue slots per (row, code)", "Modelled times")
    for title, table in zip(titles, tables, strict=True):
        print(f"{title}\n")
        show(table, options.markdown)
        print()
    if figures:
        show(figures, options.markdown)
        print()
    for sentence in refused:
        print(f"Left out: {sentence}")
    print("Assumptions\n")
    for sentence in assumptions(entries):
        print(f"- {sentence}")
    if options.csv:
        write_csv(options.csv, tables)
    return 0


def _print_table(options: argparse.Namespace, gpus: list[Gpu]) -> int:
    try:
        table = [row for gpu in gpus for row in shape_table(options.tree, gpu, options.reduce)]
    except CodeError as error:
        print(f"gpu_model: {error}", file=sys.stderr)
        return 2
    print(
        "float32, ordinary path. Microseconds, all modelled; forward, backward and both with launch gaps.\n"
    )
    show(table, options.markdown)
    print("\nAssumptions\n")
    for sentence in table_assumptions(gpus, options.reduce):
        print(f"- {sentence}")
    if options.csv:
        write_rows(options.csv, [{**row, "kind": "modelled"} for row in table])
    return 0


def write_csv(path: FilePath, tables: list[list[dict[str, Any]]]) -> None:
    """One line a kernel, path and GPU, with the columns of both tables."""
    costs = {(row["kernel"], row["path"], row["code"]): row for row in tables[0]}
    lines = [
        {**costs[row["kernel"], row["path"], GPUS[row["GPU"]].architecture], **row, "kind": "modelled"}
        for row in tables[1]
    ]
    write_rows(path, lines)
