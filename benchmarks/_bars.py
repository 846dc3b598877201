"""The speed and memory figures that the project holds itself to: native CPU kernel, temperature 0.7.

Most are measured twice: through the public API (`gumbel_quantize` with inputs that require gradients, and
`torch.autograd.grad` for the backward pass), and as the bare kernel (native calls on preallocated outputs).
_bar_sheet.py says what each figure is and which have a bar.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _bar_sheet as sheet
import torch
from _bar_sheet import Figures
from _case import Case
from _contenders import CompiledTextbook, Contender, Floor, Ours, Textbook, native_module
from _grid import PAPER_SCALARS, TEMPERATURE, Progress, first_sentence
from _report import describe_machine, measured_on, replace_between
from _timing import (
    BACKWARD,
    BOTH,
    BUSY,
    FORWARD,
    PASSES,
    Measured,
    call_overhead,
    interleave,
    peak_extra_bytes,
    time_settled_turn,
    time_turn,
    usable_cores,
)
from port_limit import PortLimit

from fqvae_kernels import ScalarQuantizer, nearest_quantize

_CPU = torch.device("cpu")
_SCALARS, _CODES, _LARGE = 65_536, 64, 1_048_576
_LEAST_ROUNDS = 200  # of the kernel and its port limit, whose least times count


class BareKernel(Contender):
    """The native functions on preallocated outputs: no autograd, no allocation, no argument checks."""

    name = "bare kernel"
    needs_arrays = False

    def __init__(self, native: Any) -> None:
        self._native = native

    def prepare(self, case: Case) -> None:
        from fqvae_kernels._call import Call, Incoming, Kept
        from fqvae_kernels.backends import cpu

        n, k = case.scalars, case.codes
        quantized, kl, grad_z = (torch.empty(n) for _ in range(3))
        indices = torch.empty(n, dtype=torch.int64)
        stats = torch.empty(self._native.STATS, n)
        inputs = case.z, case.codebook, Call(temperature=case.temperature, seed=1)
        self._forward = cpu.pack_forward(*inputs, quantized, indices, kl, None, stats)
        kept, incoming = Kept(indices, stats), Incoming(case.grad_quantized, case.grad_kl)
        gradients = grad_z, torch.empty(1, k), None
        self._backward = cpu.pack_backward(*inputs, kept, incoming, gradients)
        self._pointed = inputs, kept, incoming, gradients, quantized, kl  # what the packed addresses are of
        self._threads = torch.get_num_threads()

    def forward(self, case: Case) -> Any:
        self._native.forward(self._forward, self._threads)

    def backward(self, case: Case, outputs: Any) -> Any:
        self._native.backward(self._backward, self._threads)


def run(threads: int | None, output: Path, page: Path | None, load: float | None) -> int:
    """Measure, print, write the record of this processor; 1 where there is no native CPU kernel to measure.

    page: gets the tables of all records in `output`.
    """
    native = native_module()
    if native is None:
        print("The bars are for the native CPU kernel, and this installation has none.", file=sys.stderr)
        return 1
    many = threads or min(2, usable_cores())
    before = torch.get_num_threads(), native.instruction_set()
    progress, figures = Progress(), sheet.Figures()
    try:
        _one_thread(native, figures, progress)
        torch.set_num_threads(many)
        native.use_instruction_set(before[1])
        for scalars in (PAPER_SCALARS, _SCALARS):
            _against_compiled(native, figures, progress, scalars)
        _memory(figures, progress)
        _overhead(figures)
        machine = describe_machine(_CPU, load)
    finally:
        native.use_instruction_set(before[1])
        torch.set_num_threads(before[0])
        progress.close()
    processor = name_processor(machine["processor"], _cpuinfo())
    date = time.strftime("%Y-%m-%d", time.gmtime())
    about = f"{processor}, {date}{_commit()}: {measured_on(machine)}"
    if load is not None and load > BUSY:
        about += f" The machine was busy (load average {load:.1f}): times may have come out long."
    record = sheet.Record(processor, about, figures)
    print(sheet.tables([record]))
    print(f"\nWritten: {record.write(output)}")
    if page is not None:
        replace_between(page, "bars", sheet.tables(sheet.read_records(output)))
        print(f"Written: the tables in {page}, of all processors on record in {output}")
    return 0


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {done.stdout.strip()}"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def name_processor(name: str, cpuinfo: str) -> str:
    """The processor's name with its family and model, where cpuinfo has them: a name may be of several."""
    name = re.sub(r"\((R|TM)\)", "", name)
    found = [re.search(rf"^{key}\s*: (\d+)$", cpuinfo, re.MULTILINE) for key in ("cpu family", "model")]
    numbers = [match[1] for match in found if match]
    return f"{name} (family {numbers[0]}, model {numbers[1]})" if len(numbers) == 2 else name


def _measure(contenders: list[Contender], case: Case, rounds: int) -> list[Measured]:
    """Warm up, then interleaved rounds, for contenders that are already prepared."""
    turns = [lambda c=contender: time_settled_turn(c, case) for contender in contenders]
    interleave(turns, 3)
    results = []
    for seconds in interleave(turns, rounds):
        measured = Measured()
        for turn in seconds:
            for name, value in turn.items():
                measured.seconds[name].append(value)
        results.append(measured)
    return results


def _median(measured: Measured, name: str) -> float:
    value = measured.median(name)
    assert value is not None, name
    return value


def _one_thread(native: Any, figures: Figures, progress: Progress) -> None:
    torch.set_num_threads(1)
    case = Case.make(_SCALARS, _CODES, TEMPERATURE, _CPU)
    contenders: list[Contender] = [Ours("cpu"), BareKernel(native), Floor(native)]
    best = native.instruction_set()
    for isa in dict.fromkeys((best, *sheet.SETS)):
        if isa not in native.instruction_sets():
            continue
        progress.show(f"{isa}, 1 thread, {_SCALARS:,} scalars, {_CODES} codes")
        native.use_instruction_set(isa)
        for contender in contenders:
            contender.prepare(case)
        public, bare, floor = _measure(contenders, case, 60)
        words = _median(floor, FORWARD)
        figures[sheet.words_key(isa)] = case.pairs / words * 1e-9
        for measured, column in ((public, 0), (bare, 1)):
            for name in PASSES:
                figures[sheet.floor_keys(isa, name)[column]] = _median(measured, name) / words
            figures[sheet.rate_keys(isa)[column]] = case.pairs / _median(measured, FORWARD) * 1e-9
        if isa == best:
            for name in (FORWARD, BOTH):
                figures[sheet.public_key(name)] = _median(public, name) / _median(bare, name)
    native.use_instruction_set(best)
    _inference(figures)
    progress.show("the port limit")
    _over_limit(native, case, figures)


def _inference(figures: Figures) -> None:
    """The module in eval(), which counts its codes, and the function alone, in turn on one thread."""
    quantizer = ScalarQuantizer(_CODES).eval()
    z, codebook = torch.randn(_SCALARS), quantizer.codebook.detach()

    def module() -> Any:
        return quantizer(z)

    def function() -> Any:
        return nearest_quantize(z, codebook)

    turns = [lambda: seconds_of(module), lambda: seconds_of(function)]
    with torch.no_grad():
        interleave(turns, 20)
        figures[sheet.INFERENCE] = statistics.median(
            ours / alone for ours, alone in zip(*interleave(turns, 1000), strict=True)
        )


def seconds_of(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _over_limit(native: Any, case: Case, figures: Figures) -> None:
    """The kernel and its instructions without dependencies in turn, on AVX-512; see port_limit.py."""
    limit = PortLimit(Path(native.__file__), native.instruction_sets())
    if limit.missing:
        figures.update({sheet.limit_key(name): limit.missing for name in (FORWARD, BACKWARD)})
        return
    native.use_instruction_set("avx512")
    kernel = BareKernel(native)
    kernel.prepare(case)
    seconds = interleave([lambda: time_settled_turn(kernel, case), limit.turn], _LEAST_ROUNDS)[0]
    for name in (FORWARD, BACKWARD):
        least = min(turn[name] for turn in seconds)
        figures[sheet.limit_key(name)] = least / (limit.seconds(name) * case.pairs / 16)
        figures[sheet.limit_time_key(name)] = limit.seconds(name) * 1e9


def _against_compiled(native: Any, figures: Figures, progress: Progress, scalars: int) -> None:
    progress.show(f"{torch.get_num_threads()} threads, {scalars:,} scalars, {_CODES} codes: compiled")
    case = Case.make(scalars, _CODES, TEMPERATURE, _CPU)
    contenders: list[Contender] = [Ours("cpu"), BareKernel(native), CompiledTextbook()]
    try:
        for contender in contenders:
            contender.prepare(case)
    except Exception as error:  # no C++ compiler, or one that fails
        for name in (FORWARD, BOTH):
            for key in sheet.compiled_keys(scalars, name):
                figures[key] = f"torch.compile fails: {first_sentence(error)}"
        return
    *ours, compiled = _measure(contenders, case, 40)
    for name in (FORWARD, BOTH):
        for key, measured in zip(sheet.compiled_keys(scalars, name), ours, strict=True):
            figures[key] = _median(compiled, name) / _median(measured, name)


def _memory(figures: Figures, progress: Progress) -> None:
    progress.show(f"{_LARGE:,} scalars, {_CODES} codes: extra memory")
    small = Case.make(16, _CODES, TEMPERATURE, _CPU)
    case = Case.make(_LARGE, _CODES, TEMPERATURE, _CPU)
    contenders: tuple[tuple[str, Contender], ...] = (
        (sheet.MEMORY, Ours("cpu")),
        (sheet.TEXTBOOK_MEMORY, Textbook()),
    )
    for key, contender in contenders:
        time_turn(contender, small)
        peak, _ = peak_extra_bytes(lambda c=contender: time_turn(c, case), _CPU)
        figures[key] = "the system resets no process's memory peak" if peak is None else peak / 2**20


def _overhead(figures: Figures) -> None:
    call, empty = call_overhead(Ours("cpu"), _CPU)
    figures[sheet.EMPTY_CALL] = empty * 1e6
    figures[sheet.CALL] = (call - empty) * 1e6
