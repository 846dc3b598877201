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
from gpu_check.processes import environment
from gpu_check.results import Lines

TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 17  # the exit status that says that the tool has found something
MOST_TEXT = 1500
# Without PyTorch's pool every tensor has an allocation of its own, and a stray access leaves it.
VARIABLES = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "FQVAE_SHORT_SMOKE": "1", "OMP_NUM_THREADS": "1"}


def check(program: str, name: str, backend: str, lines: Lines) -> bool:
    """One tool on one backend's short smoke: a line with what it found. Returns whether that is nothing."""
    with tempfile.TemporaryFile() as answers:
        done = subprocess.run(
            [
                *(program, "--tool", name, "--error-exitcode", str(FOUND), "--kernel-regex", "kns=_"),
                *(sys.executable, "-m", "gpu_check.worker"),
                *(str(answers.fileno()), "gpu_check.smoke_cases", backend, "0", "1"),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            pass_fds=(answers.fileno(),),
            env=environment(**VARIABLES),
            check=False,
        )
        answers.seek(0)
        messages = answers.read().decode().splitlines()
    output = done.stdout + done.stderr
    marked = [line for line in output.splitlines() if line.startswith("=========")]
    summary = next((line for line in reversed(marked) if "SUMMARY" in line), "")
    number = re.search(r"(\d+) (?:errors?|hazards?)", summary)
    clean = done.returncode == 0 and number is not None and number[1] == "0"
    lines.write(
        tool=name,
        backend=backend,
        exit=done.returncode,
        cases=sum('"number"' in line for line in messages),
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
    threads = [
        threading.Thread(target=lambda n=name, b=backend: results.append(check(program, n, b, lines)))
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
