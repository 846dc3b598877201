"""Trains other people's models with their own quantizer and with ours, and makes a table of it.

    cd benchmarks
    python -m adoption [CASE ...]             losses: trains what the file of results does not have
    python -m adoption [CASE ...] --time      times of a step, about ten seconds a case, on an idle machine
    python -m adoption --table                prints the table
    python -m adoption --write                puts it into docs/replace.md

A case whose package is missing (diffusers, transformers, pythae, vector-quantize-pytorch, scikit-learn) is
left out. The file is written after each run, so that an interrupted command goes on where it was; to train
again after a change add --again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from _report import describe_machine
from _timing import load_average

from adoption import table
from adoption.case import Case
from adoption.registry import CASES
from adoption.results import Results
from adoption.steps import time_steps
from adoption.train import train

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None, cases: Mapping[str, Case] = CASES) -> int:
    """Run the command. cases: those that it knows."""
    parser = argparse.ArgumentParser(
        prog="python -m adoption", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases)} (default: all)")
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--time", action="store_true", help="measure steps instead of training")
    does.add_argument("--table", action="store_true", help="only print the table")
    does.add_argument("--write", action="store_true", help="only put the table into the page")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="train these alone, such as ours")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--again", action="store_true", help="forget what the file has of these runs first")
    parser.add_argument("--seconds", type=float, default=10.0, help="of --time, a case (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "replace.md", help="of --write")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results" / "adoption.json", metavar="FILE"
    )
    options = parser.parse_args(argv)
    for name in options.cases:
        if name not in cases:
            parser.error(f"CASE was {name!r}; it may be one of {', '.join(cases)}")
    chosen = {name: case for name, case in cases.items() if name in (options.cases or cases)}
    kinds = {kind for case in chosen.values() for kind in case.kinds}
    for kind in options.kinds or ():
        if kind not in kinds:
            parser.error(f"KIND was {kind!r}; it may be one of {', '.join(sorted(kinds))}")
    results = Results(options.results)
    if options.write:
        try:
            table.write(options.page, cases, results)
        except (OSError, ValueError) as error:
            parser.error(f"--page was {options.page}: {error}")
        return 0
    if options.table:
        print(table.page(cases, results))
        return 0
    torch.set_num_threads(options.threads)
    chosen = _installed(chosen)
    if options.time:
        _time(chosen, results, options.seconds)
    else:
        if options.again:
            for name, case in chosen.items():
                for kind in options.kinds or case.kinds:
                    results.remove_runs(name, kind, options.seeds)
        _train(chosen, results, options.kinds, options.seeds)
    return 0


def _installed(cases: dict[str, Case]) -> dict[str, Case]:
    """The cases that can be run; says which packages the others miss."""
    for name, case in cases.items():
        if case.missing():
            print(f"{name} is left out: {', '.join(case.missing())} is not installed", flush=True)
    return {name: case for name, case in cases.items() if not case.missing()}


def _train(cases: dict[str, Case], results: Results, kinds: list[str] | None, seeds: list[int]) -> None:
    for name, case in cases.items():
        for seed in seeds:
            for kind in case.kinds:
                if (kinds and kind not in kinds) or seed in results.runs(name, kind):
                    continue
                losses = train(case, kind, seed)
                results.add_run(name, kind, seed, losses)
                shown = ", ".join(f"{key} {value:.4g}" for key, value in losses.items())
                print(f"{name}, {kind}, seed {seed}: {shown}", flush=True)


def _time(cases: dict[str, Case], results: Results, seconds: float) -> None:
    # The load changes from one moment to the next and is no part of what a machine is.
    machine = describe_machine(torch.device("cpu"), None)
    for name, case in cases.items():
        load = load_average()
        times = time_steps(case, seconds)
        results.add_times(name, times, machine)
        for kind, found in times.items():
            shown = (
                f"{found['milliseconds']:.2f} ms, {found['times_as_fast']:.2f} x ({found['rounds']} rounds)"
            )
            print(f"{name}, {kind}: {shown}", flush=True)
        if load is not None and load > 0.5:
            print(f"  the machine's load was {load:.1f} before it: other work slows steps down", flush=True)


if __name__ == "__main__":
    sys.exit(main())
