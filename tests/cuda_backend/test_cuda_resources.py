"""Registers, shared memory and spills of the compiled CUDA kernels.

resources.csv has what nvcc of the release that it names made of them. More registers than there, counted by
eights, or any local memory, fails. A change that is meant: `python tests/cuda_backend/test_cuda_resources.py`
writes the table anew.
"""

import csv
import functools
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pytest
from nvcc import SOURCES, compiled, needs_nvcc, nvcc

TABLE = pathlib.Path(__file__).with_name("resources.csv")
TESTED = ("sm_80", "sm_90", "sm_100")
# A GPU gives each thread registers by eights. Within that nvcc is not repeatable: the same source, compiled
# again, takes one more or one less.
REGISTER_UNIT = 8
COLUMNS = ("nvcc", "arch", "kernel", "registers", "shared", "local")


@functools.cache
def cuobjdump() -> str | None:
    """The command: beside nvcc, from the PATH, or from triton."""
    places = [] if nvcc() is None else [pathlib.Path(nvcc()).parent]
    triton = importlib.util.find_spec("triton")
    if triton is not None:
        places += [
            pathlib.Path(folder, "backends", "nvidia", "bin") for folder in triton.submodule_search_locations
        ]
    beside = (shutil.which("cuobjdump", path=str(place)) for place in places)
    return shutil.which("cuobjdump") or next(filter(None, beside), None)


@functools.cache
def release() -> str:
    """nvcc's version, such as "13.0.88"."""
    text = subprocess.run([nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V(\d+\.\d+\.\d+)", text)[1]


def resources(arch: str) -> dict[str, dict[str, int]]:
    """Of each kernel: registers of a thread, bytes of static shared memory, bytes of local memory."""
    found = {}
    for source in SOURCES:
        command = [cuobjdump(), "--dump-resource-usage", compiled(source, arch, "cubin")]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for kernel, line in re.findall(r"Function (\w+):\s*\n(.*)", text):
            of = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            # What a thread spills lies on its stack.
            found[kernel] = {
                "registers": of["REG"],
                "shared": of["SHARED"],
                "local": of["STACK"] + of["LOCAL"],
            }
    return found


def table() -> list[dict[str, str]]:
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


@needs_nvcc
@pytest.mark.skipif(cuobjdump() is None, reason="there is no cuobjdump, on the PATH or from triton")
@pytest.mark.parametrize("arch", TESTED)
def test_resources(arch):
    rows = {row["kernel"]: row for row in table() if row["arch"] == arch}
    releases = {row["nvcc"] for row in rows.values()}
    if releases != {release()}:
        pytest.skip(f"the table is of nvcc {', '.join(releases)}, this is {release()}")
    found = resources(arch)
    assert found.keys() == rows.keys(), "other kernels than in the table"
    spilled = {kernel: of["local"] for kernel, of in found.items() if of["local"] > 0}
    grown = {
        f"{kernel} {what}": f"{of[what]}, before {rows[kernel][what]}"
        for kernel, of in found.items()
        for what, unit in (("registers", REGISTER_UNIT), ("shared", 1))
        if -(-of[what] // unit) > -(-int(rows[kernel][what]) // unit)
    }
    assert not spilled, f"bytes of local memory: {spilled}"
    assert not grown


def known() -> list[str]:
    """The architectures from sm_75 to sm_120 that this nvcc compiles for."""
    text = subprocess.run([nvcc(), "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    return [f"sm_{n}" for n in sorted(map(int, re.findall(r"sm_(\d+)\s", text))) if 75 <= n <= 120]


def write(archs: list[str]):
    """Measures these architectures; the table keeps its rows of the others, if of the same release."""
    rows = [] if not TABLE.exists() else table()
    rows = [row for row in rows if row["arch"] not in archs and row["nvcc"] == release()]
    for arch in archs:
        for kernel, of in resources(arch).items():
            rows.append({"nvcc": release(), "arch": arch, "kernel": kernel, **of})
        print(arch, flush=True)
    rows.sort(key=lambda row: (int(row["arch"][3:]), row["kernel"]))
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    write(sys.argv[1:] or known())
