"""Stage timings: what is wanted most comes first, so that a limit costs the least."""

from __future__ import annotations

import sys
from pathlib import Path

from gpu_check.results import Lines, read
from gpu_check.stages import TIMING_PATIENCE
from gpu_check.supervise import supervise
from gpu_check.timing_cases import SUBJECTS


def main() -> int:
    path = Path(sys.argv[1]) / "timings.jsonl"
    lines = Lines(path, fresh=True)
    # One at a time: they share the device.
    for subject in SUBJECTS:
        supervise("gpu_check.timing_cases", subject, lines.write, TIMING_PATIENCE)
    results = read(path)
    failed = [line for line in results if "error" in line]
    print(f"{len(results) - len(failed)} of {len(results)} timings taken")
    return int(bool(failed) or not results)


if __name__ == "__main__":
    sys.exit(main())
