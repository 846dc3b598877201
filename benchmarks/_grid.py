"""The main measurement: every contender at every shape of the grid, timed in turn."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

import torch
from _contenders import Case, Contender
from _timing import Measured, available_bytes, interleave, peak_extra_bytes, time_settled_turn, time_turn

TEMPERATURE = 0.7
PAPER_SCALARS = 256 * 12
FULL_SCALARS = (PAPER_SCALARS, 65_536, 1_048_576)
FULL_CODES = (16, 64, 256, 1024)
QUICK_SHAPES = ((PAPER_SCALARS, 64), (16_384, 16))

# Larger arrays of size scalars x codes are not tried: 2^26 float32 are 256 MiB, and a formula holds several.
_MAX_PAIRS = {"cpu": 1 << 26, "cuda": 1 << 28}
_MIN_ROUNDS, _MAX_ROUNDS = 3, 200


@dataclass
class Cell:
    """One shape: what was measured of each contender, and why the others are missing."""

    scalars: int
    codes: int
    measured: dict[str, Measured] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


class Progress:
    """One line per step on stderr: on a terminal it is overwritten, in a log it stays."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._live = sys.stderr.isatty()

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def show(self, text: str, detail: str = "") -> None:
        if self._live:
            line = f"[{self.elapsed:4.0f} s] {text}{': ' + detail if detail else ''}"
            print(f"\r\x1b[K{line[:118]}", end="", file=sys.stderr, flush=True)
        elif not detail:
            print(f"[{self.elapsed:4.0f} s] {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Grid:
    """Runs the cells within a budget of seconds: what no longer fits is left out, and the table says so."""

    def __init__(self, contenders: list[Contender], device: torch.device, *, quick: bool) -> None:
        self._contenders = contenders
        self._device = device
        self._seconds_a_cell = 0.5 if quick else 4.0
        self._deadline = 60.0 if quick else 160.0
        self._shapes = QUICK_SHAPES if quick else tuple((n, k) for n in FULL_SCALARS for k in FULL_CODES)
        self._unusable: dict[str, str] = {}
        self._seconds_a_pair: dict[str, float] = {}
        self._seconds_to_prepare: dict[str, float] = {}

    def run(self, progress: Progress) -> list[Cell]:
        progress.show("warming up")
        warm = Case.make(16, 16, TEMPERATURE, self._device)
        for contender in self._contenders:
            self._first_turn(contender, warm)
        cells = []
        for number, (scalars, codes) in enumerate(self._shapes, start=1):
            title = f"shape {number} of {len(self._shapes)}: {scalars:,} scalars, {codes} codes"
            progress.show(title)
            cells.append(self._run_cell(scalars, codes, progress, title))
        progress.close()
        return cells

    def _run_cell(self, scalars: int, codes: int, progress: Progress, title: str) -> Cell:
        cell = Cell(scalars, codes)
        case = Case.make(scalars, codes, TEMPERATURE, self._device)
        running: list[Contender] = []
        seconds_a_round = 0.0
        for contender in self._contenders:
            reason = self._reason_to_skip(contender, case, progress)
            if reason is None:
                progress.show(title, f"{contender.name}, first run and memory")
                reason = self._first_turn(contender, case)
            if reason is not None:
                cell.skipped[contender.name] = reason
                continue
            measured = Measured()
            peak, turn = peak_extra_bytes(lambda c=contender: time_turn(c, case), self._device)
            measured.peak_bytes = peak
            spent = max(turn.values())
            seconds_a_round += min(2 * spent, spent + 0.5)  # see time_settled_turn
            self._seconds_a_pair[contender.name] = spent / case.pairs
            cell.measured[contender.name] = measured
            running.append(contender)
        rounds = int(min(_MAX_ROUNDS, max(_MIN_ROUNDS, self._seconds_a_cell / max(seconds_a_round, 1e-6))))
        progress.show(title, f"{rounds} interleaved rounds")
        turns = [lambda c=contender: time_settled_turn(c, case) for contender in running]
        for contender, results in zip(running, interleave(turns, rounds), strict=True):
            for result in results:
                for name, seconds in result.items():
                    cell.measured[contender.name].seconds[name].append(seconds)
        return cell

    def _first_turn(self, contender: Contender, case: Case) -> str | None:
        """Prepare and run once; None, or why it cannot (it then sits out the rest of the grid)."""
        try:
            start = time.perf_counter()
            contender.prepare(case)
            self._seconds_to_prepare[contender.name] = time.perf_counter() - start
            time_turn(contender, case)
        except Exception as error:  # a missing compiler, too little memory, ...: the others go on
            reason = first_sentence(error)
            if not _is_out_of_memory(error):
                self._unusable[contender.name] = reason
            return reason
        return None

    def _reason_to_skip(self, contender: Contender, case: Case, progress: Progress) -> str | None:
        if contender.name in self._unusable:
            return self._unusable[contender.name]
        limit = contender.max_pairs
        if limit is not None and case.pairs > limit:
            return f"slow; run up to {limit:,} pairs only"
        limit = _MAX_PAIRS[self._device.type]
        if contender.needs_arrays and case.pairs > limit:
            return f"writes arrays of {case.pairs * 4 / 2**30:.0f} GiB; run up to {limit * 4 / 2**30:g} GiB"
        free = available_bytes(self._device)
        if free is not None and contender.bytes_needed(case) > 0.7 * free:
            return (
                f"needs about {contender.bytes_needed(case) / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
            )
        predicted = self._seconds_a_pair.get(contender.name, 0.0) * case.pairs * (2 + _MIN_ROUNDS)
        predicted += self._seconds_to_prepare.get(contender.name, 0.0)
        if progress.elapsed + predicted > self._deadline and predicted > 0.5:
            return f"would take about {predicted:.0f} s more; out of time"
        return None


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "allocate memory" in str(error)


def first_sentence(error: BaseException) -> str:
    """The first line of the error that started it, short enough for a table."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    text = str(root).strip()
    line = text.splitlines()[0] if text else ""
    return f"{type(root).__name__}: {line}"[:160]
