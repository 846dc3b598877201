"""Run the jobs of a sweep, some at a time, wherever that is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fqvae.files import lock
from fqvae.sweep.file import LOCK
from fqvae.sweep.place import Place, Result, Underway
from fqvae.sweep.plan import Job
from fqvae.sweep.progress import Progress

PAUSE = 0.1  # seconds between looks at the runs


def run_jobs(
    jobs: Sequence[Job],
    place: Place,
    progress: Progress,
    *,
    at_a_time: int = 1,
    begins: Callable[[], bool] = lambda: True,
) -> list[Result]:
    """Run all jobs; one that fails does not stop the others.

    On Ctrl-C, or an exception here, the runs are interrupted and waited for before it goes on its way; a
    second Ctrl-C kills them.

    Args:
        jobs: in the order in which they begin.
        place: where they run.
        progress: is told what happens.
        at_a_time: how many jobs, at least 1.
        begins: whether one more job may begin. Once it says no, those that run are waited for, and the others
            never begin.

    Returns:
        a result for each job that began, in the order in which the jobs ended.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    waiting, results = list(jobs), list[Result]()
    running: dict[Job, tuple[Underway, float]] = {}  # with the time at which it began
    with _interrupts() as interrupts:
        try:
            while waiting or running:
                if interrupts:
                    raise KeyboardInterrupt
                if waiting and not begins():
                    waiting.clear()
                while waiting and len(running) < at_a_time and not interrupts:
                    job = waiting.pop(0)
                    running[job] = place.begin(job), time.monotonic()
                for job, (run, began) in list(running.items()):
                    result = run.poll()
                    if result is not None:
                        del running[job]
                        results.append(result)
                        progress.ended(job, result.failure, time.monotonic() - began)
                progress.show(
                    [(job, run.doing, time.monotonic() - began) for job, (run, began) in running.items()]
                )
                if running:
                    time.sleep(PAUSE)
        finally:
            _stop([run for run, _ in running.values()], interrupts)
    return results


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """SIGINTs in a list: a KeyboardInterrupt may come while a process is started, which would be lost."""
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield interrupts
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _stop(runs: Sequence[Underway], interrupts: Sequence[int]) -> None:
    """Interrupt runs and wait until they have ended; on one more interrupt kill them."""
    before, left = len(interrupts), list(runs)
    for run in left:
        run.interrupt()
    while left := [run for run in left if run.poll() is None]:
        if len(interrupts) > before:
            for run in left:
                run.kill()
        time.sleep(PAUSE)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a sweep's folder and hold it: no second sweep may work in it. Raises BlockingIOError, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w", encoding="utf-8") as file:
        if not lock(file):
            raise BlockingIOError(f"{folder} is in use by another sweep that is running now")
        yield


def share_of_threads(at_a_time: int) -> int | None:
    """Threads for each of so many processes; None for a single one, which takes what it likes."""
    if at_a_time == 1:
        return None
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // at_a_time)
