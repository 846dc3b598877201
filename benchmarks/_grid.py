"""The main measurement: every contender at every shape of the grid, timed in turn."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import _cuda_graphs
import _cuda_timing
import torch
from _case import Case
from _contenders import Contender
from _timing import (
    BACKWARD,
    BOTH,
    FORWARD,
    Measured,
    available_bytes,
    interleave,
    peak_extra_bytes,
    time_settled_turn,
    time_turn,
)

TEMPERATURE = 0.7
PAPER_SCALARS = 256 * 12
FULL_SCALARS = (PAPER_SCALARS, 65_536, 1_048_576)
FULL_CODES = (16, 64, 256, 1024)
QUICK_SHAPES = ((PAPER_SCALARS, 64), (16_384, 16))

# Larger arrays of size scalars x codes are not tried: 2^26 float32 are 256 MiB, and a formula holds several.
_MAX_PAIRS = {"cpu": 1 << 26, "cuda": 1 << 28}
_MIN_ROUNDS, _MAX_ROUNDS = 3, 200
# On a GPU: the share of a cell's seconds for its rounds, that for calls on the wall clock, and how many of
# those there are at most. What is left is for CUDA graphs, and for what goes slower than planned.
_ROUNDS_SHARE, _WALL_SHARE, _WALL_ROUNDS = 0.7, 0.1, 20
# The part of the whole time that is planned for, so that the last cells are not short of it.
_PLANNED = 0.93
# The part of a cell's seconds that its rounds get however short time is.
_LEAST_SHARE = 0.2


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
    """Runs the cells within a budget of seconds: what no longer fits is left out, and the table says so.

    All seconds of the budget are those of the wall clock, whatever part of them the device works.
    """

    def __init__(self, contenders: list[Contender], device: torch.device, *, quick: bool) -> None:
        self._contenders = contenders
        self._device = device
        self._seconds_a_cell = 0.5 if quick else 4.0
        self._deadline = 60.0 if quick else 160.0
        self._shapes = QUICK_SHAPES if quick else tuple((n, k) for n in FULL_SCALARS for k in FULL_CODES)
        self._unusable: dict[str, str] = {}
        self._seconds_a_pair: dict[str, float] = {}
        self._seconds_to_prepare: dict[str, float] = {}

    def run(self, progress: Progress, after_cell: Callable[[list[Cell]], None] | None = None) -> list[Cell]:
        """after_cell: called with all cells so far, each time one is done."""
        progress.show("warming up")
        warm = Case.make(16, 16, TEMPERATURE, self._device)
        for contender in self._contenders:
            self._first_turn(contender, warm)
        cells = []
        for number, (scalars, codes) in enumerate(self._shapes, start=1):
            title = f"shape {number} of {len(self._shapes)}: {scalars:,} scalars, {codes} codes"
            progress.show(title)
            later = len(self._shapes) - number
            cells.append(self._run_cell(scalars, codes, progress, title, later))
            if after_cell is not None:
                after_cell(cells)
        progress.close()
        return cells

    def _run_cell(self, scalars: int, codes: int, progress: Progress, title: str, later: int) -> Cell:
        cell = Cell(scalars, codes)
        begin = progress.elapsed
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
            measured.peak_bytes, spent = peak_extra_bytes(
                lambda c=contender: self._seconds_of_turn(c, case), self._device
            )
            seconds_a_round += min(2 * spent, spent + 0.5)  # see time_settled_turn
            self._seconds_a_pair[contender.name] = spent / case.pairs
            cell.measured[contender.name] = measured
            running.append(contender)
        seconds, most = self._seconds_a_cell, math.inf
        if self._device.type == "cuda":
            seconds = self._seconds_for(progress, later, progress.elapsed - begin)
            most = 1.2 * seconds
        rounds = int(min(_MAX_ROUNDS, max(_MIN_ROUNDS, seconds / max(seconds_a_round, 1e-6))))
        progress.show(title, f"{rounds} interleaved rounds")
        turns = [lambda c=contender: time_settled_turn(c, case) for contender in running]
        for contender, results in zip(running, interleave(turns, rounds, most, _MIN_ROUNDS), strict=True):
            for result in results:
                for name, value in result.items():
                    cell.measured[contender.name].seconds[name].append(value)
        if self._device.type == "cuda":
            self._add_wall(cell, case, running, seconds * _WALL_SHARE / _ROUNDS_SHARE)
            self._add_graphs(cell, case, running, progress, title)
        return cell

    def _seconds_of_turn(self, contender: Contender, case: Case) -> float:
        """On the wall clock: on a GPU that is more than its work, for the host queues it, and may wait."""
        begin = time.perf_counter()
        turn = time_turn(contender, case)
        return time.perf_counter() - begin if self._device.type == "cuda" else max(turn.values())

    def _seconds_for(self, progress: Progress, later: int, spent: float) -> float:
        """Seconds for the rounds of this cell, so that later ones get theirs if they cost as much before."""
        left = _PLANNED * self._deadline - progress.elapsed - later * spent
        share = _ROUNDS_SHARE * left / (later + 1)
        return max(_LEAST_SHARE * self._seconds_a_cell, min(self._seconds_a_cell, share))

    def _add_wall(self, cell: Cell, case: Case, running: list[Contender], seconds: float) -> None:
        """Calls on the wall clock, interleaved as the others; and who waits for the device."""
        turns = [lambda c=contender: _cuda_timing.wall_turn(c, case) for contender in running]
        for contender, results in zip(running, interleave(turns, _WALL_ROUNDS, seconds), strict=True):
            measured = cell.measured[contender.name]
            measured.waits = _cuda_timing.waits_for_the_device(contender.name)
            for name, values in zip((FORWARD, BACKWARD, BOTH), zip(*results, strict=True), strict=True):
                measured.wall[name] = [value for value in values if value is not None]

    def _add_graphs(
        self, cell: Cell, case: Case, running: list[Contender], progress: Progress, title: str
    ) -> None:
        for contender in running:
            measured = cell.measured[contender.name]
            measured.graph_missing = _cuda_graphs.reason_against(contender, case)
            if not measured.graph_missing and progress.elapsed > self._deadline:
                measured.graph_missing = "out of time"
            for variant, forward in contender.graph_forwards().items():
                if measured.graph_missing:
                    break
                progress.show(title, f"{contender.name}, CUDA graph")
                try:
                    alone, both = _cuda_graphs.replay_seconds(contender, case, forward)
                except Exception as error:  # whatever it does that a capture refuses, the others go on
                    measured.graph_missing = first_sentence(error)
                    if not _is_out_of_memory(error):
                        _cuda_graphs.refuse(contender, measured.graph_missing)
                    break
                measured.graph[variant] = {FORWARD: alone, BOTH: both}

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
