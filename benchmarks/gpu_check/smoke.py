"""Stage smoke: every kernel once, synchronised, against another backend; one line each."""

from __future__ import annotations

import sys
from pathlib import Path

from gpu_check.place import BACKENDS
from gpu_check.processes import cores
from gpu_check.results import Lines, read
from gpu_check.stages import SMOKE_PATIENCE
from gpu_check.supervise import share_out


def main() -> int:
    path = Path(sys.argv[1]) / "smoke.jsonl"
    lines = Lines(path, fresh=True)
    shards = max(1, min(4, cores() // 4))
    # Two threads each: the CPU computes what is expected.
    share_out("gpu_check.smoke_cases", BACKENDS, lines.write, SMOKE_PATIENCE, shards, OMP_NUM_THREADS="2")
    results = read(path)
    failed = [line for line in results if not line["ok"]]
    print(f"{len(results) - len(failed)} of {len(results)} kernels agree")
    return int(bool(failed) or not results)


if __name__ == "__main__":
    sys.exit(main())
