"""What the benchmark leaves behind: a table to read, a CSV, a plot, and the table of docs/performance.md."""

from __future__ import annotations

import csv
import importlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _contenders import (
    COMPILED,
    FLOOR,
    SEED_GIVEN,
    TEXTBOOK,
    VECTOR_QUANTIZE,
    Contender,
    native_module,
    vector_quantize_version,
)
from _grid import TEMPERATURE, Cell
from _timing import BOTH, FORWARD, PASSES, Measured, usable_cores

# Of the CSV on a GPU: the model's bound, eager calls on the wall clock, and calls replayed from a CUDA graph.
_GPU_COLUMNS = (
    "modelled_bound_ms",
    "fraction_of_modelled_bound",
    "wall_ms",
    "graph_replay_ms",
    "graph_replay_seed_given_ms",
    "graph_replay_missing",
    "waits_for_the_device",
)
_BASELINES = {"textbook": TEXTBOOK, "compiled": COMPILED, "floor": FLOOR}


def describe_machine(device: torch.device, load: float | None) -> dict[str, str]:
    """Machine and versions, in the order of the CSV's columns. `load`: its load average before the run."""
    import fqvae_kernels

    native = native_module()
    build = native.build_info() if native else {}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": _processor(),
        "cores": str(usable_cores()),
        "instruction_set": native.instruction_set() if native else "",
        "threads": str(torch.get_num_threads()),
        "load_at_start": "" if load is None else f"{load:.1f}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "fqvae_kernels": str(fqvae_kernels.__version__),
        "compiler": str(build.get("compiler", "")),
        "vector_quantize_pytorch": vector_quantize_version(),
    }


def measured_on(machine: dict[str, str]) -> str:
    """One line: measured on this machine, with these versions."""
    where = f"{machine['processor']} ({machine['cores']} cores)"
    if machine["device"] == "cpu":
        kernels = (
            f"instruction set {machine['instruction_set']}"
            if machine["instruction_set"]
            else "no native kernels"
        )
        where += f", {kernels}, {machine['threads']} thread{'' if machine['threads'] == '1' else 's'}"
    else:
        where = f"{machine['device']}, CUDA {machine['cuda']}, {where}"
    versions = (
        f"torch {machine['torch']}, Python {machine['python']}, fqvae_kernels {machine['fqvae_kernels']}"
    )
    if machine["vector_quantize_pytorch"]:
        versions += f", vector-quantize-pytorch {machine['vector_quantize_pytorch']}"
    return f"Measured on {where}; {versions}."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_table(cells: list[Cell], contenders: list[Contender], machine: dict[str, str]) -> None:
    """One block a shape. Times in milliseconds: the median, and p20 to p80 in brackets."""
    print(measured_on(machine))
    print(
        f"float32, temperature {TEMPERATURE}; median [p20-p80]; memory: peak on top of what was there before."
    )
    print("Last columns: times as fast as the textbook, as the compiled textbook, and time over the floor's;")
    print("first for the forward pass, then for forward and backward together.")
    on_gpu = machine["device"] != "cpu"
    if on_gpu:
        print("wall: an eager call from an idle device to an idle device; graph: the device's time of a call")
        print(
            "replayed from a CUDA graph, its launches' gaps included, its inputs where the replay before has"
        )
        print("left them. Both: forward / forward and backward, ms. The other times are the device's, eager.")
    for cell in cells:
        rounds = max((measured.rounds for measured in cell.measured.values()), default=0)
        print(f"\n{cell.scalars:,} scalars, {cell.codes} codes ({rounds} rounds)")
        print(
            f"  {'':26}{'forward ms':>22}{'backward ms':>22}{'both ms':>22}{'MiB':>7}"
            f"{'x textbook':>14}{'x compiled':>14}{'/ floor':>14}"
            + (f"{'wall':>16}{'graph':>16}" if on_gpu else "")
        )
        for contender in contenders:
            if contender.name in cell.skipped:
                print(f"  {contender.name:26}skipped: {cell.skipped[contender.name]}")
                continue
            measured = cell.measured[contender.name]
            times = "".join(f"{_spread(measured, name):>22}" for name in PASSES)
            ratios = "".join(f"{_two_ratios(cell, contender.name, baseline):>14}" for baseline in _BASELINES)
            more = ""
            if on_gpu:
                more = f"{_pair(measured.wall_median):>16}{_pair(measured.graph_median):>16}"
            print(f"  {contender.name:26}{times}{_mebibytes(measured.peak_bytes):>7}{ratios}{more}")
            if measured.waits:
                print(f"  {'':26}waits for the device inside its calls: its times hold that waiting")
            elif measured.graph_missing:
                print(f"  {'':26}no graph: {measured.graph_missing}")
            if SEED_GIVEN in measured.graph:
                given = _pair(lambda name, m=measured: m.graph_median(name, SEED_GIVEN))
                print(f"  {'':26}graph with a seed given: {given}")
            fractions = [
                f"{name} {fraction:.0%}"
                for name in PASSES
                if (fraction := measured.fraction_of_bound(name)) is not None
            ]
            if fractions:
                print(f"  {'':26}of the modelled bound: {', '.join(fractions)}")
    notes = [f"  {contender.name}: {contender.note}" for contender in contenders if contender.note]
    if notes:
        print("\nNotes\n" + "\n".join(notes))


def ratio(cell: Cell, contender: str, baseline: str, name: str) -> float | None:
    """Times as fast as the baseline; for the floor, the contender's time over that of one draw."""
    mine, other = cell.measured.get(contender), cell.measured.get(_BASELINES[baseline])
    if mine is None or other is None:
        return None
    own = mine.median(name)
    base = other.median(FORWARD if baseline == "floor" else name)
    if not own or not base:
        return None
    return own / base if baseline == "floor" else base / own


def write_csv(path: Path, cells: list[Cell], machine: dict[str, str]) -> None:
    """One row a shape, contender and pass; skipped contenders have one row that says why.

    The file is whole at any time: a new one takes the place of the one before.
    """
    on_gpu = machine["device"] != "cpu"
    header = [
        "scalars",
        "codes",
        "temperature",
        "contender",
        "pass",
        "median_ms",
        "p20_ms",
        "p80_ms",
        "rounds",
    ]
    header += [
        "peak_extra_mib",
        "times_as_fast_as_textbook",
        "times_as_fast_as_compiled",
        "times_the_floor",
        *(_GPU_COLUMNS if on_gpu else ()),
        "skipped",
    ]
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header + list(machine))
        for cell in cells:
            shape: list[Any] = [cell.scalars, cell.codes, TEMPERATURE]
            for contender, measured in cell.measured.items():
                peak = measured.peak_bytes
                for name in PASSES:
                    if not measured.seconds[name]:
                        continue
                    row = [*shape, contender, name]
                    row += [_number(measured.quantile(name, q), 1e3) for q in (0.5, 0.2, 0.8)]
                    row += [measured.rounds, _number(peak, 2**-20) if name == BOTH else ""]
                    row += [_number(ratio(cell, contender, baseline, name)) for baseline in _BASELINES]
                    row += _gpu_cells(measured, name) if on_gpu else []
                    writer.writerow([*row, "", *machine.values()])
            for contender, reason in cell.skipped.items():
                blank = [""] * (len(header) - len(shape) - 2)
                writer.writerow([*shape, contender, *blank, reason, *machine.values()])
    unfinished.replace(path)


def _gpu_cells(measured: Measured, name: str) -> list[Any]:
    """What `_GPU_COLUMNS` name, for one pass."""
    return [
        _number(measured.bounds.get(name), 1e3),
        _number(measured.fraction_of_bound(name)),
        _number(measured.wall_median(name), 1e3),
        _number(measured.graph_median(name), 1e3),
        _number(measured.graph_median(name, SEED_GIVEN), 1e3),
        measured.graph_missing,
        "yes" if measured.waits else "",
    ]


def draw_plot(path: Path, cells: list[Cell], contenders: list[Contender], machine: dict[str, str]) -> bool:
    """Time of forward and backward together against the number of codes, a panel for each number of scalars.

    False, after one sentence, where matplotlib is missing.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print("matplotlib is not installed, so no plot is drawn.")
        return False
    sizes = sorted({cell.scalars for cell in cells})
    figure, axes = pyplot.subplots(
        1, len(sizes), figsize=(4 * len(sizes) + 1, 4.5), sharex=True, sharey=True, squeeze=False
    )
    for axis, scalars in zip(axes[0], sizes, strict=True):
        for contender in contenders:
            name = BOTH if contender.has_backward else FORWARD
            points = [
                (cell.codes, median * 1e3)
                for cell in cells
                if cell.scalars == scalars and contender.name in cell.measured
                if (median := cell.measured[contender.name].median(name)) is not None
            ]
            style = {"linestyle": "--", "color": "grey"} if contender.name == FLOOR else {"marker": "o"}
            axis.plot([x for x, _ in points], [y for _, y in points], label=contender.name, **style)
        codes = sorted({cell.codes for cell in cells})
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(codes, [str(k) for k in codes])
        axis.set_title(f"{scalars:,} scalars")
        axis.set_xlabel("codes")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("forward + backward, ms")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 0.05))
    figure.text(0.5, 0.01, measured_on(machine), ha="center", fontsize=6)
    figure.tight_layout(rect=(0, 0.2, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def markdown_table(cells: list[Cell], best: str, machine: dict[str, str], plot: str) -> str:
    """The table of docs/performance.md: one line a shape, for our backend `best`.

    plot: the picture's link, or empty.
    """
    ours = f"fqvae_kernels, {best}"
    columns = [
        "scalars",
        "codes",
        "textbook",
        "compiled",
        VECTOR_QUANTIZE,
        best,
        "x textbook",
        "x compiled",
        "/ floor",
        "textbook MiB",
        f"{best} MiB",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + " ---: |" * len(columns)]
    for cell in cells:
        times = [
            _milliseconds(cell.measured[name].median(BOTH)) if name in cell.measured else "-"
            for name in (TEXTBOOK, COMPILED, VECTOR_QUANTIZE, ours)
        ]
        ratios = [_plain(ratio(cell, ours, baseline, BOTH)) for baseline in _BASELINES]
        peaks = [
            _mebibytes(cell.measured[name].peak_bytes) if name in cell.measured else "-"
            for name in (TEXTBOOK, ours)
        ]
        row = [f"{cell.scalars:,}", f"{cell.codes:,}", *times, *ratios, *peaks]
        lines.append("| " + " | ".join(row) + " |")
    caption = (
        "Forward and backward together in milliseconds, medians of interleaved runs; float32, temperature"
        f' {TEMPERATURE}. "x": times as fast as. "/ floor": time over that of drawing the Philox words once'
        " (forward and backward each draw them). MiB: peak of extra memory."
        ' "-": not run; the benchmark\'s own table says why.'
    )
    picture = ["![Time of forward and backward against the number of codes](" + plot + ")"] if plot else []
    return "\n".join([measured_on(machine), "", *lines, "", caption, "", *picture]).rstrip("\n")


def link(target: Path, document: Path) -> str:
    """The path of `target` as a link from `document`."""
    return Path(os.path.relpath(target.resolve(), document.resolve().parent)).as_posix()


def replace_between(path: Path, marker: str, text: str | None) -> None:
    """Put `text` between `<!-- marker:begin -->` and `<!-- marker:end -->`; None only looks for it.

    Raises ValueError if the file has no such place.
    """
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    content = path.read_text(encoding="utf-8")
    if begin not in content or end not in content.split(begin, 1)[1]:
        raise ValueError(f"it has no place marked {begin} and {end}")
    before, rest = content.split(begin, 1)
    if text is not None:
        path.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{_plain(seconds * 1e3)}"


def _plain(value: float | None) -> str:
    """Three significant digits without an exponent."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _spread(measured: Measured, name: str) -> str:
    if not measured.seconds[name]:
        return "-"
    low, high = (_milliseconds(measured.quantile(name, q)) for q in (0.2, 0.8))
    return f"{_milliseconds(measured.median(name))} [{low}-{high}]"


def _pair(median: Callable[[str], float | None]) -> str:
    """Milliseconds of the forward pass, and of forward and backward together."""
    values = [_milliseconds(median(name)) for name in (FORWARD, BOTH)]
    return "-" if values == ["-", "-"] else " / ".join(values)


def _two_ratios(cell: Cell, contender: str, baseline: str) -> str:
    values = [_plain(ratio(cell, contender, baseline, name)) for name in (FORWARD, BOTH)]
    return "-" if values == ["-", "-"] else " / ".join(values)


def _mebibytes(size: int | None) -> str:
    if size is None:
        return "-"
    return "< 1" if size < 2**20 else f"{size / 2**20:,.0f}"


def _number(value: float | None, scale: float = 1.0) -> str:
    return "" if value is None else f"{value * scale:.6g}"
