"""`fqvae sweep`."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fqvae.models.config import ConfigError
from fqvae.runs.checkpoint import CheckpointError
from fqvae.sweep import file as sweep_file
from fqvae.sweep.file import RESULTS, Changes, Sweep, read_sweep, sweep_names
from fqvae.sweep.plan import Job, check_unchanged, plan, steps_trained, train_words
from fqvae.sweep.record import check_record, write_record

if TYPE_CHECKING:
    from fqvae.sweep.place import Result

_LINES = 16  # of a terminal, for runs on a cluster
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
    parser.add_argument(
        "--protocol",
        choices=("ours", "authors"),
        help="authors: train and measure as the authors of the paper do (docs/protocol.md)",
    )
    parser.add_argument("--seeds", metavar="0,1,2", help="instead of the sweep's")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time, each with its share of the cores (or OMP_NUM_THREADS threads, if that is set)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS|local",
        help="hand the runs to a Ray cluster, or to Ray on this machine, as many at a time as fit; "
        "the nodes need this package and must share the folder",
    )
    parser.add_argument("--cpus", type=float, metavar="N", help="of a run under --ray (1)")
    parser.add_argument("--gpus", type=float, metavar="N", help="of a run under --ray (0)")
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
    _check_resources(options)
    settings = tuple(word for word in words if word not in names)
    changes = Changes(
        options.preset, options.model, _seeds(options.seeds), settings, protocol=options.protocol
    )
    sweep = read_sweep(names[0], changes)
    out = options.out or Path("runs") / sweep.name
    if options.ray is not None:
        out = out.resolve()  # it means the same on every node
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
        print("fqvae: interrupted; the same command goes on with it", file=sys.stderr)
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


def _check_resources(options: argparse.Namespace) -> None:
    """Check --jobs, --ray, --cpus and --gpus. Raises ConfigError."""
    if options.ray is None:
        for name in ("cpus", "gpus"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name} goes with --ray only; --jobs says how many runs at a time")
    elif options.jobs is not None:
        raise ConfigError("--jobs does not go with --ray; --cpus and --gpus say what a run takes up")
    for name, least in (("jobs", 1), ("cpus", 0), ("gpus", 0)):
        value = getattr(options, name)
        if value is not None and not least <= value < float("inf"):
            raise ConfigError(f"--{name} must be at least {least}, but was {value:g}")


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
    from fqvae.sweep.results import write_results
    from fqvae.sweep.runner import locked

    with locked(out):
        write_record(sweep, out)
        results = _results(sweep, jobs, options)
        failures = {each.job: each.failure for each in results if each.failure is not None}
        problem = write_results(sweep, jobs, failures, out)
    for job, failure in failures.items():
        print(f"fqvae: error: {job.title}: {failure} ({job.log})", file=sys.stderr)
    if problem is not None:
        print(f"fqvae: error: {out / RESULTS[2]} was not written: {problem}", file=sys.stderr)
    return 1 if failures or problem is not None else 0


def _results(sweep: Sweep, jobs: Sequence[Job], options: argparse.Namespace) -> list[Result]:
    """Run all jobs, here or on the cluster."""
    from fqvae.sweep.local import Local
    from fqvae.sweep.progress import Progress
    from fqvae.sweep.runner import run_jobs, share_of_threads
    from fqvae.sweep.work import Work

    if options.ray is None:
        at_a_time = options.jobs or 1
        work = Work(sweep.evaluate, options.device, share_of_threads(at_a_time))
        with contextlib.closing(Progress(len(jobs), min(at_a_time, len(jobs)))) as progress:
            local = Local(work.stages, work.threads, progress.note)
            return run_jobs(jobs, local, progress, at_a_time=at_a_time)

    from fqvae.sweep.cluster import Cluster, connected

    cpus = 1.0 if options.cpus is None else options.cpus
    gpus = options.gpus or 0.0
    # A GPU that Ray has not given to the run belongs to another one.
    device = "cpu" if options.device == "auto" and not gpus else options.device
    work = Work(sweep.evaluate, device, max(1, int(cpus)))
    with (
        contextlib.closing(Progress(len(jobs), min(_LINES, len(jobs)))) as progress,
        connected(options.ray, cpus, gpus, progress.note),
    ):
        return run_jobs(jobs, Cluster(work, cpus, gpus), progress, at_a_time=len(jobs))
