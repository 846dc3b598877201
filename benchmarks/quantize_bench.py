"""Compares the quantizer with the textbook formula (eager, compiled), vector-quantize-pytorch and a floor.

    python benchmarks/quantize_bench.py            the whole grid: table, CSV and plot in under three minutes
    python benchmarks/quantize_bench.py --quick    two small shapes, to see that everything runs
    python benchmarks/quantize_bench.py --bars     the ratios that the project holds itself to (CPU)
    python benchmarks/quantize_bench.py --device cuda   the grid on a GPU, with what the cost model allows

All contenders run in one process on the same inputs and are timed in turn, forward and backward apart, after
a warm-up; compiling is not timed. On a GPU the time is the device's, by CUDA events, with inputs that its
cache does not hold. docs/performance.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import warnings
from pathlib import Path

try:
    import torch

    import fqvae_kernels  # noqa: F401
except ImportError as error:
    sys.exit(f"The benchmark needs PyTorch and this package ({error}). In the repository: pip install -e .")

import _bars
import _report
from _contenders import Ours, build_contenders, serving_backends
from _grid import Cell, Grid, Progress
from _timing import (
    BACKWARD,
    BOTH,
    BUSY,
    FORWARD,
    call_overhead,
    can_measure_memory,
    load_average,
    usable_cores,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

from gpu_model.bound import Bounds  # noqa: E402


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="two small shapes, under a minute")
    parser.add_argument("--bars", action="store_true", help="the project's own ratios instead of the grid")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--backend", help="only this one of ours (default: all that serve)")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "benchmarks" / "results",
        help="folder for the CSV and the plot (default: benchmarks/results)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's own choice)")
    parser.add_argument(
        "--readme",
        nargs="?",
        type=Path,
        const=ROOT / "docs" / "performance.md",
        metavar="FILE",
        help="also put the table between FILE's bench markers (bars markers with --bars, bench-cuda markers "
        "with --device cuda; default: docs/performance.md). The table of the bars is of all processors on "
        "record in --output",
    )
    options = parser.parse_args(argv)
    if options.threads is not None and not 1 <= options.threads <= 1024:
        parser.error(f"--threads was {options.threads}; it may be 1 to 1024 (cores here: {usable_cores()})")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device was cuda, but PyTorch finds no CUDA device here; it may be cpu")
    if options.bars and (options.device != "cpu" or options.quick or options.backend):
        parser.error("--bars is for the CPU kernel and goes with --threads, --output and --readme only")
    serving = serving_backends(torch.device(options.device))
    if options.backend is not None and options.backend not in serving:
        choices = " or ".join(map(repr, serving))
        parser.error(f"--backend was {options.backend!r}; on {options.device} it may be {choices} here")
    if options.readme is not None:
        try:
            _report.replace_between(options.readme, _marker(options), None)
        except (OSError, ValueError) as error:
            parser.error(f"--readme was {options.readme}; it may be a file with the markers ({error})")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.output).close()
    except OSError as error:
        parser.error(f"--output was {options.output}; it may be a folder to write to ({error})")
    options.backends = serving if options.backend is None else (options.backend,)
    return options


def _marker(options: argparse.Namespace) -> str:
    """The marker of the place in the page for what these options measure."""
    return "bars" if options.bars else "bench" if options.device == "cpu" else "bench-cuda"


def file_stem(device: str, quick: bool) -> str:
    """The name of the result files for this device: "cpu", or the name of a GPU."""
    name = re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
    return f"quantize_{name}" + ("_quick" if quick else "")


def add_bounds(cells: list[Cell], bounds: Bounds) -> None:
    """Put what the cost model allows the CUDA kernels beside what was measured of them."""
    for cell in cells:
        measured = cell.measured.get("fqvae_kernels, cuda")
        if measured is None:
            continue
        for name in (FORWARD, BACKWARD):
            seconds = bounds.seconds(name, cell.scalars, cell.codes)
            if seconds is not None:
                measured.bounds[name] = seconds
        if len(measured.bounds) == 2:
            measured.bounds[BOTH] = sum(measured.bounds.values())


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    # Compilers and other people's packages warn about their own affairs; errors still surface in the table.
    warnings.filterwarnings("ignore")
    load = load_average()
    if load is not None and load > BUSY:
        print(
            f"The machine has been busy (load average {load:.1f}): times may come out long.", file=sys.stderr
        )
    if options.bars:
        return _bars.run(options.threads, options.output, options.readme, load)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    contenders, absent = build_contenders(device, options.backends)
    if not can_measure_memory(device):
        absent.append("This system does not let a process reset its memory peak, so no memory is measured.")
    machine = _report.describe_machine(device, load)
    stem = file_stem(machine["device"], options.quick)
    table, plot = options.output / f"{stem}.csv", options.output / f"{stem}.png"
    bounds = Bounds(machine["device"]) if options.device == "cuda" else None
    if bounds is not None and bounds.missing:
        absent.append(f"No modelled bound: {bounds.missing}.")

    def keep(cells: list[Cell]) -> None:
        """Whatever ends the program later, these cells stay."""
        if bounds is not None:
            add_bounds(cells, bounds)
        _report.write_csv(table, cells, machine)

    cells = Grid(contenders, device, quick=options.quick).run(Progress(), keep)

    _report.print_table(cells, contenders, machine)
    for sentence in absent:
        print(sentence)
    for backend in options.backends:
        call, empty = call_overhead(Ours(backend), device)
        print(
            f"Overhead, {backend}: an eager forward call at 16 scalars, 64 codes takes {call * 1e6:.1f} us, "
            f"an empty torch.autograd.Function {empty * 1e6:.1f} us."
        )

    plotted = _report.draw_plot(plot, cells, contenders, machine)
    print(f"\nWritten: {table}" + (f", {plot}" if plotted else ""))
    if options.readme is not None:
        picture = _report.link(plot, options.readme) if plotted else ""
        text = _report.markdown_table(cells, options.backends[0], machine, picture)
        _report.replace_between(options.readme, _marker(options), text)
        print(f"Written: the table in {options.readme}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
