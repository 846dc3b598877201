"""Train and evaluate what an experiment lacks, and keep the results of each run as it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fqvae.sweep import Job, Sweep, plan
from fqvae.sweep.local import Local
from fqvae.sweep.plan import check_unchanged, evaluate_words
from fqvae.sweep.progress import Progress
from fqvae.sweep.runner import locked, run_jobs
from fqvae.sweep.work import Stage, Work
from rayshapes_runs.store import INDEX, Store

_TRIES = 5  # of a commit: another git may hold the index


def train_missing(
    sweep: Sweep,
    store: Store,
    scratch: Path,
    *,
    at_a_time: int = 1,
    minutes: float | None = None,
    commit: bool = False,
) -> int:
    """Train and evaluate the runs of a sweep whose results the store lacks, one thread each.

    Interrupted at any time it loses no more than is not in the checkpoints of the runs at work; called again
    it goes on from these, if the scratch folder is still there. A run that another experiment beside this one
    has with the same configuration and seed is copied, not trained: it would give the same.

    Args:
        sweep: the experiment.
        store: where results are kept.
        scratch: the folder for checkpoints; no second call may work in it.
        at_a_time: how many runs.
        minutes: after these no run begins, and those at work are waited for; None: no end.
        commit: make a git commit of the store's folder as each run ends.

    Returns:
        The number of runs that failed.

    Raises:
        ConfigError: results or checkpoints that are there are of another configuration; nothing is begun.
        KeyboardInterrupt: it was interrupted.
    """
    jobs = plan(sweep, scratch)
    missing = [job for job in jobs if not store.has(job, sweep.evaluate)]
    check_unchanged(missing)
    for job in list(missing):
        if found := store.copy(job, sweep.evaluate):
            missing.remove(job)
            print(f"{job.title}: as {found}", flush=True)
    print(f"{sweep.name}: {len(jobs) - len(missing)} of {len(jobs)} runs are there", flush=True)
    end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    with locked(scratch), contextlib.closing(_Keeping(missing, at_a_time, store, commit)) as progress:
        if commit:
            commit_folder(store.folder, f"RayShapes runs: {store.folder.name}")
        work = Work(sweep.evaluate, "cpu", 1)

        def stages(job: Job) -> Iterator[Stage]:
            yield from work.stages(job)
            if store.wants_index(job):
                words = evaluate_words(job, dataclasses.replace(sweep.evaluate, order="index"))
                child = [sys.executable, "-m", "fqvae.sweep.child", *words]
                yield (
                    "evaluating",
                    [*child, "--out", str(job.folder / INDEX), "--jobs", "1", "--device", "cpu"],
                )

        local = Local(stages, work.threads, progress.note)
        results = run_jobs(
            missing, local, progress, at_a_time=at_a_time, begins=lambda: time.monotonic() < end
        )
    failed = [each for each in results if each.failure is not None]
    for each in failed:
        print(f"error: {each.job.title}: {each.failure} ({each.job.log})", file=sys.stderr)
    there = len(jobs) - len(missing) + len(results) - len(failed)
    print(f"{sweep.name}: {there} of {len(jobs)} runs are there, {len(failed)} failed", flush=True)
    return len(failed)


class _Keeping(Progress):
    """Keeps the results of each run that has ended well."""

    def __init__(self, jobs: list[Job], at_a_time: int, store: Store, commit: bool) -> None:
        super().__init__(len(jobs), min(at_a_time, len(jobs)))
        self._store, self._commit = store, commit

    def ended(self, job: Job, failure: str | None, seconds: float) -> None:
        """Keep them, then tell."""
        if failure is None:
            self._store.put(job)
            if self._commit:
                name = self._store.folder.name
                commit_folder(self._store.folder, f"RayShapes run: {name}, {job.title}", self.note)
        super().ended(job, failure, seconds)


def commit_folder(folder: Path, message: str, note: Callable[[str], None] = print) -> bool:
    """Commit what has changed in a folder, and nothing else; whether that succeeded or there was nothing.

    A failure is told and no error: the next commit takes up what was left out.
    """
    if not folder.is_dir():
        return True
    for attempt in range(_TRIES):
        reason = _git(folder, "add", "--", ".")
        if reason is None and _git(folder, "diff", "--cached", "--quiet", "--", ".") is None:
            return True  # nothing new
        if reason is None:
            reason = _git(folder, "commit", "--quiet", "-m", message, "--", ".")
        if reason is None:
            return True
        time.sleep(attempt)
    note(f"no commit of {folder}: {reason}")
    return False


def _git(folder: Path, *words: str) -> str | None:
    """Run git; why it failed, if it did."""
    # In a session of its own: Ctrl-C is for the runs, not for a commit.
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    return None if done.returncode == 0 else (done.stderr.strip() or f"status {done.returncode}")
