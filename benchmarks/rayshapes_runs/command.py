"""The command of benchmarks/rayshapes.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fqvae.sweep import read_sweep
from rayshapes_runs.store import Store
from rayshapes_runs.training import train_missing

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "rayshapes"
SCRATCH = ROOT / "runs" / "rayshapes"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/rayshapes.py",
        description="The runs on RayShapes that docs/results.md reports.",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="what is kept of runs")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="train and evaluate what an experiment lacks")
    run.add_argument("experiment", help="a sweep of the package, or a sweep file")
    run.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (1)")
    run.add_argument("--minutes", type=float, help="begin no run after these")
    run.add_argument("--commit", action="store_true", help="make a git commit of the results of each run")
    run.add_argument("--scratch", type=Path, default=SCRATCH, metavar="DIR", help="for checkpoints")
    run.set_defaults(command=_run)
    options = parser.parse_args(argv)
    try:
        status: int = options.command(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with it", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def _run(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, but was {options.jobs}")
    if options.minutes is not None and not options.minutes > 0:
        raise ValueError(f"--minutes must be positive, but was {options.minutes}")
    sweep = read_sweep(options.experiment)
    failed = train_missing(
        sweep,
        Store(options.results / sweep.name),
        options.scratch / sweep.name,
        at_a_time=options.jobs,
        minutes=options.minutes,
        commit=options.commit,
    )
    return 1 if failed else 0
