"""Runs stages one after another, each in a process group of its own that is killed at the stage's limit."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_check import packed
from gpu_check.place import ON_CPU, has_gpu
from gpu_check.processes import die_with_parent, environment
from gpu_check.results import Lines
from gpu_check.stages import NAMES, STAGES, STAND_IN_FACTOR, Stage


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The folder, the stages in the table's order, and their limits."""
    table = "\n".join(f"  {stage.name:<10}{stage.limit:>4.0f} s   {stage.about}" for stage in STAGES)
    parser = argparse.ArgumentParser(
        prog="gpu_check.sh",
        description=f"Stages, their limits, and what they leave in DIR:\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="STAGE=SECONDS", help="another limit for a stage"
    )
    parser.add_argument(
        "--packed", type=Path, default=packed.FOLDER, help="what pack.sh has made (default: %(default)s)"
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="default: all, in the order above")
    options = parser.parse_args(argv)
    for name in options.stages:
        if name not in NAMES:
            parser.error(f"STAGE was {name!r}; it may be {', '.join(NAMES)}")
    limits = {stage.name: stage.limit * (STAND_IN_FACTOR if ON_CPU else 1) for stage in STAGES}
    for given in options.limit:
        name, _, seconds = given.partition("=")
        try:
            limits[name] = float(seconds) if name in NAMES else limits[name]
        except (ValueError, KeyError):
            parser.error(f"--limit was {given!r}; it may be STAGE=SECONDS with a STAGE of {', '.join(NAMES)}")
    chosen = set(options.stages or NAMES)
    options.stages = [s._replace(limit=limits[s.name]) for s in STAGES if s.name in chosen]
    return options


def run_stage(stage: Stage, out: Path, variables: dict[str, str]) -> int:
    """Its exit status; 124 where the limit ended it. What it prints goes to log.txt."""
    with (out / "log.txt").open("ab") as log:
        log.write(f"\n=== {stage.name}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", stage.module, str(out), stage.name, str(stage.limit)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            return process.wait(stage.limit)
        except subprocess.TimeoutExpired:
            return 124
        finally:
            # The whole group, and also where the stage has ended: it may have left children.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    if not ON_CPU and not has_gpu():
        print(
            "This machine shows no NVIDIA GPU: there is nothing to check. "
            "FQVAE_GPU_TESTS_ON=cpu lets the CPU stand in for one.",
            file=sys.stderr,
        )
        return 2
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lines = Lines(out / "stages.jsonl")
    variables = environment()
    failed = False
    with tempfile.TemporaryDirectory(prefix="fqvae-triton-") as cache:
        with contextlib.suppress(OSError):
            variables |= packed.take(options.packed, Path(cache))
        for stage in options.stages:
            failed |= one(stage, out, lines, variables)
    return int(failed)


def one(stage: Stage, out: Path, lines: Lines, variables: dict[str, str]) -> bool:
    """Runs a stage and says so in stages.jsonl and on the screen. Returns whether it failed."""
    begun, clock = now(), time.monotonic()
    lines.write(stage=stage.name, event="start", start=begun, limit_s=stage.limit)
    print(f"{begun} {stage.name}: at most {stage.limit:.0f} s", flush=True)
    status: int | None = None
    try:
        status = run_stage(stage, out, variables)
    finally:
        seconds = round(time.monotonic() - clock, 2)
        ended = "killed at its limit" if status == 124 else f"exit {status}"
        lines.write(stage=stage.name, event="end", start=begun, seconds=seconds, exit=status, ended=ended)
    failed = status != 0
    print(f"{now()} {stage.name}: {ended} after {seconds} s. {last_line(out / 'log.txt')}", flush=True)
    return failed


def now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def last_line(path: Path) -> str:
    """The last line of a stage's output that is not empty, cut to a terminal's width."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:160] if lines and not lines[-1].startswith("===") else ""


if __name__ == "__main__":
    sys.exit(main())
