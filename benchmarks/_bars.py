"""The speed and memory figures that the project holds itself to: native CPU kernel, temperature 0.7.

Each is measured twice: through the public API (`gumbel_quantize` with inputs that require gradients, and
`torch.autograd.grad` for the backward pass), and as the bare kernel (native calls on preallocated outputs).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from _case import Case
from _contenders import CompiledTextbook, Contender, Floor, Ours, Textbook, native_module
from _grid import PAPER_SCALARS, TEMPERATURE, Progress, first_sentence
from _report import describe_machine, measured_on, replace_between
from _timing import (
    BACKWARD,
    BOTH,
    FORWARD,
    Measured,
    call_overhead,
    interleave,
    peak_extra_bytes,
    time_settled_turn,
    time_turn,
    usable_cores,
)

_CPU = torch.device("cpu")
_SCALARS, _CODES, _LARGE = 65_536, 64, 1_048_576


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


class _Sheet:
    """Lines of: what, through the public API, bare kernel, the bar, and whether the figure meets it."""

    def __init__(self) -> None:
        self.lines = ["| figure | public API | bare kernel | bar | |", "| --- | ---: | ---: | ---: | --- |"]

    def add(
        self, what: str, public: float | None, bare: float | None, *, least: float = 0, most: float = 0
    ) -> None:
        """One figure; `least` or `most` is its bar, neither makes it one that is told only."""
        judged = bare if public is None else public
        bar = f"at least {least:g}" if least else f"at most {most:g}" if most else ""
        met = judged is not None and (judged >= least if least else judged <= most)
        verdict = "" if not bar else "not measured" if judged is None else "met" if met else "missed"
        figures = ["" if value is None else f"{value:,.2f}" for value in (public, bare)]
        self.lines.append("| " + " | ".join([what, *figures, bar, verdict]) + " |")

    def tell(self, what: str, text: str) -> None:
        self.lines.append(f"| {what}: {text} | | | | |")


def run(threads: int | None, output: Path, readme: Path | None, load: float | None) -> int:
    """Measure, print, write `quantize_bars.md`; 1 where there is no native CPU kernel to measure."""
    native = native_module()
    if native is None:
        print("The bars are for the native CPU kernel, and this installation has none.", file=sys.stderr)
        return 1
    many = threads or min(2, usable_cores())
    before = torch.get_num_threads(), native.instruction_set()
    progress, sheet = Progress(), _Sheet()
    try:
        _one_thread(native, sheet, progress)
        torch.set_num_threads(many)
        native.use_instruction_set(before[1])
        for scalars, bars in ((_SCALARS, (25, 15)), (PAPER_SCALARS, (15, 10))):
            _against_compiled(native, sheet, progress, scalars, bars)
        _memory(sheet, progress)
        _overhead(sheet)
        machine = describe_machine(_CPU, load)
    finally:
        native.use_instruction_set(before[1])
        torch.set_num_threads(before[0])
        progress.close()
    text = "\n".join([measured_on(machine), "", *sheet.lines])
    print(text)
    (output / "quantize_bars.md").write_text(text + "\n")
    if readme is not None:
        replace_between(readme, "bars", text)
    return 0


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


def _one_thread(native: Any, sheet: _Sheet, progress: Progress) -> None:
    torch.set_num_threads(1)
    case = Case.make(_SCALARS, _CODES, TEMPERATURE, _CPU)
    contenders: list[Contender] = [Ours("cpu"), BareKernel(native), Floor(native)]
    for isa in ("avx512", "avx2"):
        label = f"{isa}, 1 thread, {_SCALARS:,} scalars, {_CODES} codes"
        if isa not in native.instruction_sets():
            sheet.tell(label, "not on this processor or not built")
            continue
        progress.show(label)
        native.use_instruction_set(isa)
        for contender in contenders:
            contender.prepare(case)
        public, bare, floor = _measure(contenders, case, 60)
        words = _median(floor, FORWARD)
        # The bars over the floor are AVX-512's; AVX2 is held to a rate of its own.
        best = isa == "avx512"
        sheet.add(f"{label}: floor, G words/s", None, case.pairs / words * 1e-9, least=2.8 if best else 0)
        for name, most in ((FORWARD, 2.7), (BACKWARD, 2.7), (BOTH, 5.4)):
            figures = [_median(measured, name) / words for measured in (public, bare)]
            sheet.add(f"{label}: {name} / floor", figures[0], figures[1], most=most if best else 0)
        rates = [case.pairs / _median(measured, FORWARD) * 1e-9 for measured in (public, bare)]
        sheet.add(f"{label}: forward, G pairs/s", rates[0], rates[1], least=0 if best else 0.45)


def _against_compiled(
    native: Any, sheet: _Sheet, progress: Progress, scalars: int, bars: tuple[int, int]
) -> None:
    size = f"{torch.get_num_threads()} threads, {scalars:,} scalars, {_CODES} codes"
    label = f"{size}: times as fast as compiled"
    progress.show(label)
    case = Case.make(scalars, _CODES, TEMPERATURE, _CPU)
    contenders: list[Contender] = [Ours("cpu"), BareKernel(native), CompiledTextbook()]
    try:
        for contender in contenders:
            contender.prepare(case)
    except Exception as error:  # no C++ compiler, or one that fails
        sheet.tell(label, f"torch.compile fails ({first_sentence(error)})")
        return
    public, bare, compiled = _measure(contenders, case, 40)
    for name, least in zip((FORWARD, BOTH), bars, strict=True):
        figures = [_median(compiled, name) / _median(measured, name) for measured in (public, bare)]
        sheet.add(f"{label}, {name}", figures[0], figures[1], least=least)


def _memory(sheet: _Sheet, progress: Progress) -> None:
    label = f"{_LARGE:,} scalars, {_CODES} codes, forward and backward: extra memory, MiB"
    progress.show(label)
    small = Case.make(16, _CODES, TEMPERATURE, _CPU)
    case = Case.make(_LARGE, _CODES, TEMPERATURE, _CPU)
    contenders: list[Contender] = [Ours("cpu"), Textbook()]
    peaks = []
    for contender in contenders:
        time_turn(contender, small)
        peak, _ = peak_extra_bytes(lambda c=contender: time_turn(c, case), _CPU)
        peaks.append(None if peak is None else peak / 2**20)
    sheet.add(label, peaks[0], None, most=64)
    sheet.add(f"{label}, by the textbook", peaks[1], None)


def _overhead(sheet: _Sheet) -> None:
    call, empty = call_overhead(Ours("cpu"), _CPU)
    sheet.add("an empty torch.autograd.Function, us a call", empty * 1e6, None)
    sheet.add("a forward call at 16 scalars, 64 codes: us on top", (call - empty) * 1e6, None, most=40)
