"""Trains the runs on RayShapes that docs/results.md reports, and makes its tables and plots of them.

    python benchmarks/rayshapes.py run EXPERIMENT [--jobs 2] [--minutes M] [--commit]
    python benchmarks/rayshapes.py choose [--sweep choose_long]   which weights each model gets
    python benchmarks/rayshapes.py table           tables and plots, of the results that are there
    python benchmarks/rayshapes.py again [FOLDER ...]   runs made again from what is kept, and compared

An experiment is a sweep of the package (`fqvae sweep --help` names them); `run` goes on with it where it was.
What is kept of a run lies in benchmarks/results/rayshapes/EXPERIMENT/RUN/seed-N.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rayshapes_runs.again import first_kept, make_again
from rayshapes_runs.choosing import GRIDS, choose, chosen_text, preset_text
from rayshapes_runs.questions import BY_INDEX, EXPERIMENTS
from rayshapes_runs.store import Store
from rayshapes_runs.training import train_missing

from fqvae.files import write_whole
from fqvae.sweep import read_sweep

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "rayshapes"
PRESETS = ROOT / "fqvae" / "configs"
PAGE = ROOT / "docs" / "results.md"
FIGURES = ROOT / "docs" / "results"
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
    chooses = commands.add_parser("choose", help="write what is chosen, and a preset of the package")
    chooses.add_argument(
        "--sweep", default="choose", metavar="NAME|FILE", help="choose, choose_long (choose)"
    )
    chooses.add_argument("--preset", type=Path, metavar="FILE", help="to write (the package's)")
    chooses.set_defaults(command=_choose)
    table = commands.add_parser("table", help="put tables and plots of all results into the page")
    table.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="with the markers")
    table.add_argument("--figures", type=Path, default=FIGURES, metavar="DIR", help="for plots")
    table.set_defaults(command=_table)
    again = commands.add_parser("again", help="make runs again, and compare what is measured")
    again.add_argument(
        "folders", type=Path, nargs="*", metavar="FOLDER", help="of kept runs; the first of each experiment"
    )
    again.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (1)")
    again.set_defaults(command=_again)
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


def _check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, but was {jobs}")


def _run(options: argparse.Namespace) -> int:
    _check_jobs(options.jobs)
    if options.minutes is not None and not options.minutes > 0:
        raise ValueError(f"--minutes must be positive, but was {options.minutes}")
    sweep = read_sweep(options.experiment)
    for name, grid in GRIDS.items():
        chosen = options.results / grid.file
        if sweep.preset == grid.preset and not chosen.exists():
            raise ValueError(
                f"{sweep.name} needs {chosen}, in which the weights of the models are chosen: "
                f"run the experiment {name}, then the command choose --sweep {name}"
            )
    failed = train_missing(
        sweep,
        Store(options.results / sweep.name, by_index=sweep.name in BY_INDEX),
        options.scratch / sweep.name,
        at_a_time=options.jobs,
        minutes=options.minutes,
        commit=options.commit,
    )
    return 1 if failed else 0


def _choose(options: argparse.Namespace) -> int:
    sweep = read_sweep(options.sweep)
    choices = choose(sweep, Store(options.results / sweep.name))
    grid = GRIDS.get(sweep.name, GRIDS["choose"])
    write_whole(options.results / grid.file, chosen_text(choices))
    write_whole(options.preset or PRESETS / f"{grid.preset}.yaml", preset_text(choices, grid.steps))
    for model, choice in choices.items():
        others = ", ".join(f"{name} {scores['score']:.3f}" for name, scores in choice.grid.items())
        print(f"{model}: {others}")
    return 0


def _again(options: argparse.Namespace) -> int:
    _check_jobs(options.jobs)
    kept = (first_kept(options.results, name) for name in EXPERIMENTS)
    places = options.folders or [place for place in kept if place is not None]
    same = True
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        folders = [Path(scratch) / str(number) for number in range(len(places))]
        for place, lines in zip(places, pool.map(make_again, places, folders), strict=True):
            same = same and not lines
            print(f"{place}: {'; '.join(lines) if lines else 'equal to the last digit'}", flush=True)
    return 0 if same else 1


def _table(options: argparse.Namespace) -> int:
    from rayshapes_runs import page, tables  # matplotlib takes a second

    found = page.read_all(options.results)
    page.write(options.page, page.parts(options.results, found, options.figures, options.page))
    print(tables.counts(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
