"""`fqvae sweep`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fqvae.files import write_together
from fqvae.models.config import ConfigError
from fqvae.runs.checkpoint import CheckpointError
from fqvae.sweep import file as sweep_file
from fqvae.sweep.file import RESULTS, Sweep, read_sweep, sweep_names
from fqvae.sweep.plan import (
    Job,
    check_unchanged,
    clear_leftovers,
    evaluate_words,
    plan,
    steps_trained,
    train_words,
)

_DESCRIPTION = """Train a list of configurations with several seeds each, evaluate them, and compare them
in one table, which is also written as comparison.md and comparison.csv. What is finished is skipped, and
what was interrupted or killed goes on: give the same command again."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sweep",
        help="train and evaluate a list of configurations with several seeds, and compare them",
        usage="fqvae sweep NAME|FILE.yaml [options]",
        description=_DESCRIPTION,
        epilog=f"Sweeps that come with the package: {', '.join(sweep_names())}.\n\n{sweep_file.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="the folder; by default runs/NAME")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, each with its share of the cores (or OMP_NUM_THREADS threads, if that is set)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their states, do nothing")
    parser.set_defaults(run=_sweep)


def _sweep(options: argparse.Namespace, words: list[str]) -> int:
    if len(words) != 1:
        raise ConfigError(
            f"name one sweep ({', '.join(sweep_names())}) or the path of one file, "
            f"but was {' '.join(words) or 'nothing'!r}"
        )
    if options.jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, but was {options.jobs}")
    sweep = read_sweep(words[0])
    out = options.out or Path("runs") / sweep.name
    jobs = plan(sweep, out)
    check_unchanged(jobs)
    if options.dry_run:
        for job in jobs:
            print(_state(job))
        return 0
    try:
        return _run(sweep, jobs, out, options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with it", file=sys.stderr)
        return 130


def _state(job: Job) -> str:
    """A line about a run that is to be."""
    try:
        step, words = steps_trained(job), train_words(job)
    except CheckpointError as error:
        return f"{job.title}: cannot go on: {error}"
    if words is None:
        return f"{job.title}: trained"
    begun = "new" if step is None else f"step {step:,} of {job.config.steps:,}"
    return f"{job.title}: {begun}: fqvae {shlex.join(words)}"


def _run(sweep: Sweep, jobs: Sequence[Job], out: Path, options: argparse.Namespace) -> int:
    from fqvae.sweep.progress import Progress
    from fqvae.sweep.runner import locked, run_jobs, share_of_threads

    threads = share_of_threads(options.jobs)

    def stages(job: Job) -> Iterator[tuple[str, list[str]]]:
        child = [sys.executable, "-m", "fqvae.sweep.child"]
        device = ["--device", options.device]
        jobs_option = [] if threads is None else ["--jobs", str(threads)]
        clear_leftovers(job)
        if words := train_words(job):
            yield "training", [*child, *words, *device]
        yield "evaluating", [*child, *evaluate_words(job, sweep.evaluate), *jobs_option, *device]

    with locked(out):
        progress = Progress(len(jobs), min(options.jobs, len(jobs)))
        try:
            outcomes = run_jobs(jobs, stages, progress, at_a_time=options.jobs, threads=threads)
        finally:
            progress.close()
        finished = {each.job for each in outcomes if each.error is None}
        if finished:
            _write_table([job for job in jobs if job in finished], out)
    failed = [each for each in outcomes if each.error is not None]
    for each in failed:
        print(f"fqvae: error: {each.job.title}: {each.error} ({each.job.log})", file=sys.stderr)
    return 1 if failed else 0


def _write_table(jobs: Sequence[Job], out: Path) -> None:
    """With the sweep's own names, in its order."""
    from fqvae.evaluation.table import comparison

    folders: dict[str, list[Path]] = {}
    for job in jobs:
        folders.setdefault(job.name, []).append(job.folder)
    lines = [replace(comparison(runs).lines[0], name=name) for name, runs in folders.items()]
    table = replace(comparison([job.folder for job in jobs]), lines=tuple(lines))
    write_together({out / RESULTS[0]: table.markdown(), out / RESULTS[1]: table.csv()})
    print(table.markdown())
    print(f"the table is in {out / RESULTS[0]} and {out / RESULTS[1]}")
