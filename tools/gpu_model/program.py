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
from pathlib import Path as FilePath
from typing import Any

from . import sass
from .calls import shape_table, table_assumptions
from .cost import Path, paths_of
from .duration import REDUCE, Reduce
from .kernels import Entry, assumptions, bars, cost_table, csv_rows, time_table
from .launch import ROOT, launch_of
from .output import show, write_rows
from .sass import CodeError
from .specs import GPUS, Gpu


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


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    gpus = [GPUS[name] for name in ("H100",) if options.bars] or [GPUS[name] for name in options.gpu]
    figures: list[dict[str, Any]] = []
    if options.table:
        return _print_table(options, gpus)
    try:
        entries, refused = load(options, gpus)
        if options.bars:
            figures, entries = bars(options.bars, entries, options.rows)
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
        write_rows(options.csv, csv_rows(*tables))
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
