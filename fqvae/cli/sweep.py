"""`fqvae sweep`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fqvae.models.config import ConfigError
from fqvae.runs.checkpoint import CheckpointError
from fqvae.sweep import file as sweep_file
from fqvae.sweep.file import RESULTS, Changes, Sweep, read_sweep, sweep_names
from fqvae.sweep.plan import Job, check_unchanged, plan, steps_trained, train_words
from fqvae.sweep.record import check_record, write_record

_DESCRIPTION = """Train a list of configurations with several seeds each, evaluate them, and compare them
in one table (comparison.md, comparison.csv), in plots, and on a page (comparison.html). What is finished is
skipped, and what was interrupted or killed goes on: give the same command again. Another sweep in the same
folder is refused."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sweep",
        help="train and evaluate a list of configurations with several seeds, and compare them",
        usage="fqvae sweep NAME|FILE.yaml [key=value ...] [options]",
        description=_DESCRIPTION,
        epilog=f"Sweeps that come with the package: {', '.join(sweep_names())}.\n\n{sweep_file.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="the folder; by default runs/NAME")
    parser.add_argument("--preset", help="instead of the sweep's")
    parser.add_argument("--model", help="of all runs; for a sweep whose runs name no models of their own")
    parser.add_argument("--seeds", metavar="0,1,2", help="instead of the sweep's")
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
    names = [word for word in words if "=" not in word or Path(word).is_file()]
    if len(names) != 1:
        raise ConfigError(
            f"name one sweep ({', '.join(sweep_names())}) or the path of one file, "
            f"but was {' '.join(names) or 'nothing'!r}"
        )
    if options.jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, but was {options.jobs}")
    settings = tuple(word for word in words if word not in names)
    changes = Changes(options.preset, options.model, _seeds(options.seeds), settings)
    sweep = read_sweep(names[0], changes)
    out = options.out or Path("runs") / sweep.name
    jobs = plan(sweep, out)
    check_record(sweep, out)
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


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise ConfigError(
            f"--seeds must be whole numbers with commas between them, but was {text!r}"
        ) from None


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
    from fqvae.sweep.results import write_results
    from fqvae.sweep.runner import locked, run_jobs, share_of_threads
    from fqvae.sweep.work import Work

    work = Work(sweep.evaluate, options.device, share_of_threads(options.jobs))
    with locked(out):
        write_record(sweep, out)
        progress = Progress(len(jobs), min(options.jobs, len(jobs)))
        try:
            results = run_jobs(jobs, work.stages, progress, at_a_time=options.jobs, threads=work.threads)
        finally:
            progress.close()
        failures = {each.job: each.failure for each in results if each.failure is not None}
        problem = write_results(sweep, jobs, failures, out)
    for job, failure in failures.items():
        print(f"fqvae: error: {job.title}: {failure} ({job.log})", file=sys.stderr)
    if problem is not None:
        print(f"fqvae: error: {out / RESULTS[2]} was not written: {problem}", file=sys.stderr)
    return 1 if failures or problem is not None else 0
