"""Stage sanitizer: compute-sanitizer's tools on a short smoke of both backends, all at once."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from gpu_check.counters import tool
from gpu_check.place import BACKENDS, ON_CPU
from gpu_check.processes import die_with_parent, environment
from gpu_check.results import Lines

TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 17  # the exit status that says that the tool has found something
MOST_TEXT = 1500
MARGIN = 5.0  # seconds between the end of the runs and that of the stage
# Without PyTorch's pool every tensor has an allocation of its own, and a stray access leaves it.
VARIABLES = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "FQVAE_SHORT_SMOKE": "1", "OMP_NUM_THREADS": "1"}


def check(program: str, name: str, backend: str, lines: Lines, seconds: float) -> bool:
    """One tool on one backend's short smoke: a line with what it found. Returns whether that is nothing.

    A run that is not through after so many seconds is ended, and its line says how far it came.
    """
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as printed:
        child = subprocess.Popen(
            [
                *(program, "--tool", name, "--error-exitcode", str(FOUND)),
                *(sys.executable, "-m", "gpu_check.worker"),
                *(str(answers.fileno()), "gpu_check.smoke_cases", backend, "0", "1"),
            ],
            stdout=printed,
            stderr=subprocess.STDOUT,
            pass_fds=(answers.fileno(),),
            preexec_fn=die_with_parent,
            env=environment(**VARIABLES),
        )
        try:
            status: int | str = child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            status = f"ended after {seconds:.0f} s"
        answers.seek(0)
        printed.seek(0)
        messages, output = answers.read().decode(), printed.read().decode(errors="replace")
    marked = [line for line in output.splitlines() if line.startswith("=========")]
    summary = next((line for line in reversed(marked) if "SUMMARY" in line), "")
    number = re.search(r"(\d+) (?:errors?|hazards?)", summary)
    clean = status == 0 and number is not None and number[1] == "0"
    lines.write(
        tool=name,
        backend=backend,
        exit=status,
        cases=messages.count('"number"'),
        summary=summary.strip("= "),
        clean=clean,
        text="" if clean else "\n".join(marked or [output[-MOST_TEXT:]])[:MOST_TEXT],
    )
    return clean


def main() -> int:
    lines = Lines(Path(sys.argv[1]) / "sanitizer.jsonl", fresh=True)
    program = tool("compute-sanitizer")
    if program is None or ON_CPU:
        missing = "compute-sanitizer is not installed"
        reason = missing if program is None else "it needs a GPU, and the CPU stands in for it"
        lines.write(skipped=reason)
        print(f"skipped: {reason}")
        return 0
    results: list[bool] = []
    seconds = float(sys.argv[3]) - MARGIN
    threads = [
        threading.Thread(
            target=lambda n=name, b=backend: results.append(check(program, n, b, lines, seconds))
        )
        for backend in BACKENDS
        for name in TOOLS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(results)} of {len(threads)} runs are clean")
    return int(len(results) < len(threads) or not all(results))


if __name__ == "__main__":
    sys.exit(main())
