"""Stages cuda and triton: the tests of tests/gpu for one backend, in parallel processes, a line for each."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from gpu_check.place import ON_CPU
from gpu_check.processes import ROOT, cores, environment
from gpu_check.results import read


def command(lines: Path, marks: str, backend: str | None, processes: int, *more: str) -> list[str]:
    """pytest on tests/gpu; processes: 0 runs them here, one after another."""
    parallel = processes > 0 and importlib.util.find_spec("xdist") is not None
    return [
        *(sys.executable, "-m", "pytest", "tests/gpu", "-q", "--no-header", "--tb=short", "-m", marks),
        *("-p", "no:cacheprovider", "-p", "gpu_check.pytest_lines", "--lines", str(lines)),
        # Where pytest-benchmark is installed it warns of parallel processes, and a warning is an error here.
        *("-p", "gpu_check.pytest_programs", "-p", "no:benchmark"),
        *(("--of-backend", backend) if backend else ()),
        *(("-n", str(processes), "--dist", "worksteal", "--max-worker-restart", "1000") if parallel else ()),
        *more,
    ]


def run(arguments: list[str], timeout: float | None = None, threads: str = "1", **variables: str) -> int:
    """A command's exit status, or 124 after so many seconds. One thread each suits processes in parallel."""
    limits = {f"{name}_NUM_THREADS": threads for name in ("OMP", "MKL", "OPENBLAS") if threads}
    try:
        done = subprocess.run(
            arguments, cwd=ROOT, env=environment(**limits, **variables), timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return 124
    return done.returncode


def summary(path: Path) -> str:
    """How many tests of a file of lines had which outcome, and how many programs were compiled."""
    lines = read(path)
    counts = {o: sum(line.get("outcome") == o for line in lines) for o in ("passed", "failed", "skipped")}
    asked = {name for line in lines for name in line.get("asked", ())}
    compiled = {name for line in lines for name in line.get("compiled", ())}
    programs = f"; {len(asked)} Triton programs, {len(compiled)} of them compiled here" if asked else ""
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + programs


def main() -> int:
    out, stage = Path(sys.argv[1]), sys.argv[2]
    path = out / f"{stage}.jsonl"
    path.write_bytes(b"")
    # Where the CPU stands in, its backend does; with a cache at hand Triton's programs are asked for besides.
    pretends = ON_CPU and stage == "triton" and bool(os.environ.get("TRITON_CACHE_DIR"))
    pretends &= importlib.util.find_spec("triton") is not None
    backend = "cpu" if ON_CPU and not pretends else stage
    variables = {"FQVAE_PRETEND_GPU": "1"} if pretends else {}
    status = run(command(path, "gpu and not long", backend, cores()), **variables)
    print(summary(path))
    return status


if __name__ == "__main__":
    sys.exit(main())
