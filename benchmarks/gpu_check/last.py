"""Stage long: what needs a whole GPU's memory, one test after another; torch.compile; the benchmark."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gpu_check import device_tests
from gpu_check.place import ON_CPU
from gpu_check.processes import ROOT, cores
from gpu_check.results import Lines
from gpu_check.stages import COMPILE_TESTS, LONG_TESTS


def main() -> int:
    out, limit = Path(sys.argv[1]), float(sys.argv[3])
    path = out / "long.jsonl"
    lines = Lines(path, fresh=True)
    backend = "cpu" if ON_CPU else None
    large, compiling = ("-k", "not test_gpu_compile"), ("-k", "test_gpu_compile")
    bench = [sys.executable, str(ROOT / "benchmarks" / "quantize_bench.py"), "--output", str(out)]
    bench += ["--quick"] if ON_CPU else ["--device", "cuda"]
    marks = "gpu and long"
    parts = {
        "tests": (device_tests.command(path, marks, backend, 0, *large), limit * LONG_TESTS),
        "compile": (device_tests.command(path, marks, backend, cores(), *compiling), limit * COMPILE_TESTS),
        "benchmark": (bench, None),
    }
    statuses = []
    for name, (command, most) in parts.items():
        begun = time.monotonic()
        status = device_tests.run(command, most, threads="1" if name == "compile" else "")
        statuses.append(status)
        lines.write(part=name, exit=status, seconds=round(time.monotonic() - begun, 1), limit_s=most)
    print(f"{device_tests.summary(path)}; parts ended with {statuses}")
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
