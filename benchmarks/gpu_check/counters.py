"""Stage ncu: Nsight Compute's counters of the three main kernels, a line for each launch."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu_check.main_kernels import SHAPES
from gpu_check.place import ON_CPU
from gpu_check.processes import environment
from gpu_check.results import Lines

MARGIN = 3.0  # seconds between the end of ncu and that of the stage
KERNELS = ("forward_z_float", "forward_z_table_float", "backward_z_float", "reduce")
A_SHAPE = 3  # launches: one of the two forward kernels, and the others
METRICS = {
    "gpu__time_duration.sum": "time",
    "sm__inst_issued.avg.pct_of_peak_sustained_active": "issue slots used, %",
    "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": "special functions, % of their pipe",
    "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active": "fused multiply-add, % of its pipe",
    "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active": "integer and logic, % of their pipe",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy, %",
    "sm__maximum_warps_per_active_cycle_pct": "occupancy that fits, %",
    "smsp__inst_executed.sum": "warp instructions",
    "launch__registers_per_thread": "registers",
    "launch__grid_size": "blocks",
    "launch__block_size": "threads a block",
    "launch__waves_per_multiprocessor": "waves",
    "launch__shared_mem_config_size": "shared-memory carve-out",
    "launch__shared_mem_per_block_dynamic": "dynamic shared memory a block",
    "launch__occupancy_limit_registers": "blocks that registers allow",
    "launch__occupancy_limit_shared_mem": "blocks that shared memory allows",
    "dram__bytes.sum": "bytes to and from memory",
}


def tool(name: str) -> str | None:
    """Where a tool of the CUDA toolkit is: on the PATH or beside nvcc."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    return shutil.which(name) or shutil.which(
        name, path=os.pathsep.join(str(Path(home, "bin")) for home in homes if home)
    )


def launches(text: str) -> list[dict[str, Any]]:
    """The launches in ncu's CSV, which has a line for each launch and metric, behind other lines."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    found: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(lines[start:]):
        launch = found.setdefault(row["ID"], {"kernel": row["Kernel Name"]})
        name = METRICS.get(row["Metric Name"], row["Metric Name"])
        unit = f" [{row['Metric Unit']}]" if row["Metric Unit"] not in ("", "%") else ""
        launch[name + unit] = row["Metric Value"]
    return list(found.values())


def main() -> int:
    lines = Lines(Path(sys.argv[1]) / "ncu.jsonl", fresh=True)

    def skip(reason: str) -> int:
        lines.write(skipped=reason)
        print(f"skipped: {reason}")
        return 0

    ncu = tool("ncu")
    if ncu is None:
        return skip("ncu is not installed")
    if ON_CPU:
        return skip("ncu needs a GPU, and the CPU stands in for it")
    command = [
        # Clocks stay as they are: locking them is a setting of the device.
        *(ncu, "--csv", "--metrics", ",".join(METRICS), "--clock-control", "none"),
        *("--kernel-name-base", "function", "--kernel-name", f"regex:^({'|'.join(KERNELS)})$"),
        *(sys.executable, "-m", "gpu_check.main_kernels"),
    ]
    with tempfile.TemporaryFile("w+") as printed:
        try:
            status: int | str = subprocess.run(
                command,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=environment(),
                timeout=float(sys.argv[3]) - MARGIN,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = "none: it took too long"
        printed.seek(0)
        output = printed.read()
    sys.stderr.write(output)
    if "ERR_NVGPUCTRPERM" in output:
        return skip("the driver lets only administrators read counters (ERR_NVGPUCTRPERM)")
    found = launches(output)
    for number, launch in enumerate(found):
        rows, codes = SHAPES[min(number // A_SHAPE, len(SHAPES) - 1)]
        lines.write(rows=rows, codes=codes, **launch)
    if not found:
        problem = next((line for line in output.splitlines() if line.startswith("==ERROR==")), output[-300:])
        lines.write(error=f"exit status {status}, no counters: {problem}")
    print(f"counters of {len(found)} launches")
    return int(not found)


if __name__ == "__main__":
    sys.exit(main())
