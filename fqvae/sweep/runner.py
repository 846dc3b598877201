"""Runs as child processes, some at a time."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fqvae.files import lock
from fqvae.sweep.file import LOCK
from fqvae.sweep.plan import Job
from fqvae.sweep.progress import Progress

# (what the process does, as a participle; its command). The next is asked for when one has ended well.
Stages = Callable[[Job], Iterator[tuple[str, list[str]]]]
_PAUSE = 0.1  # seconds between looks at the processes


@dataclass(frozen=True)
class Result:
    """A run of a sweep that has ended. failure: why it is not trained and evaluated; None if it is."""

    job: Job
    failure: str | None


@dataclass
class _Running:
    """A run under way: its stages, the process of the present one, and where that one's text begins."""

    job: Job
    stages: Iterator[tuple[str, list[str]]]
    log: BinaryIO
    began: float = field(default_factory=time.monotonic)
    doing: str = ""
    process: subprocess.Popen[bytes] | None = None
    log_start: int = 0


def run_jobs(
    jobs: Sequence[Job], stages: Stages, progress: Progress, *, at_a_time: int = 1, threads: int | None = None
) -> list[Result]:
    """Run all jobs; one that fails does not stop the others.

    On Ctrl-C, or an exception here, the processes are interrupted and waited for before it goes on its way;
    a second Ctrl-C kills them.

    Args:
        jobs: in the order in which they begin.
        stages: of a job. Its ValueError or OSError is a failure of that job.
        progress: is told what happens.
        at_a_time: how many jobs, at least 1.
        threads: OMP_NUM_THREADS of the processes, if the environment does not have it; None: not set.

    Returns:
        a result for each job, in the order in which the jobs ended.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    waiting, running, results = list(jobs), list[_Running](), list[Result]()
    with _interrupts() as interrupts:
        try:
            while waiting or running:
                if interrupts:
                    raise KeyboardInterrupt
                while waiting and len(running) < at_a_time and not interrupts:
                    _begin(waiting.pop(0), stages, running, results, progress, interrupts)
                for each in list(running):
                    if each.process is None or each.process.poll() is not None:
                        result = _next_stage(each, environment)
                        if result is not None:
                            running.remove(each)
                            each.log.close()
                            results.append(result)
                            progress.ended(each.job, result.failure, time.monotonic() - each.began)
                progress.show([(each.job, each.doing, time.monotonic() - each.began) for each in running])
                if running:
                    time.sleep(_PAUSE)
        finally:
            _stop([each.process for each in running if each.process is not None], interrupts)
            for each in running:
                each.log.close()
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


def _begin(
    job: Job,
    stages: Stages,
    running: list[_Running],
    results: list[Result],
    progress: Progress,
    interrupts: list[int],
) -> None:
    """Open the job's log and lock it: a process that an earlier sweep has left still holds that lock."""
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = open(job.log, "ab")  # noqa: SIM115, closed with the job
    except OSError as error:
        results.append(Result(job, str(error)))
        progress.ended(job, str(error), 0.0)
        return
    if not lock(log):
        progress.note(f"{job.title}: waiting for a process of an earlier sweep to end")
        while not lock(log):
            if interrupts:
                log.close()
                return
            time.sleep(_PAUSE)
    running.append(_Running(job, stages(job), log))


def _next_stage(run: _Running, environment: dict[str, str]) -> Result | None:
    """Start the next process; the result, if there is none."""
    if run.process is not None:
        _close(run.process)
        if run.process.returncode != 0:
            return Result(run.job, _last_words(run, run.process.returncode))
    try:
        run.doing, command = next(run.stages)
        run.log.write(f"$ {shlex.join(command)}\n".encode())
        run.log.flush()
        run.log_start = run.log.tell()
        # In a group of its own: Ctrl-C in a terminal reaches every process of a group, and a second one
        # means something else to a training.
        run.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=run.log,
            stderr=run.log,
            env=environment,
            start_new_session=True,
        )
    except StopIteration:
        return Result(run.job, None)
    except (ValueError, OSError) as error:
        return Result(run.job, str(error))
    return None


def _last_words(run: _Running, status: int) -> str:
    """The last line that the process has printed, or how it ended."""
    if status < 0:
        return f"{run.doing} was ended by {signal.Signals(-status).name}"
    with open(run.job.log, "rb") as file:
        file.seek(run.log_start)
        lines = file.read().decode(errors="replace").split("\n")
    # A progress bar goes back to the line's beginning.
    printed = [line.split("\r")[-1].strip() for line in lines if line.strip()]
    return printed[-1] if printed else f"{run.doing} ended with exit status {status}"


def _stop(processes: Sequence[subprocess.Popen[bytes]], interrupts: Sequence[int]) -> None:
    """Interrupt processes and wait until they have ended; on one more interrupt kill them."""
    before = len(interrupts)
    for each in processes:
        each.send_signal(signal.SIGINT)
    while any(each.poll() is None for each in processes):
        if len(interrupts) > before:
            for each in processes:
                if each.poll() is None:
                    os.killpg(each.pid, signal.SIGKILL)
                    each.wait()
        time.sleep(_PAUSE)
    for each in processes:
        _close(each)


def _close(process: subprocess.Popen[bytes]) -> None:
    """Let go of the pipe whose end tells a process that its parent has ended."""
    assert process.stdin is not None
    process.stdin.close()


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
