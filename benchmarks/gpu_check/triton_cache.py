"""Makes, on a machine without a GPU, the cache of all Triton programs that the stages ask for on one.

    python -m gpu_check.triton_cache make     compiles them and packs them: minutes for each core
    python -m gpu_check.triton_cache count    asks again and says how many are not in the packed cache

Run with the release of Python, PyTorch and Triton that the machine with the GPU has: they are in the keys.
pretend.py says why the keys are those of a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from gpu_check import device_tests, packed
from gpu_check.processes import cores
from gpu_check.results import Lines, read
from gpu_check.supervise import share_out

PATIENCE = 600.0


def ask(cache: Path, lines: Path, processes: int, quick: bool = False) -> bool:
    """Has everything ask for its programs; a line for each test and case. Returns whether all went well."""
    variables = {
        "FQVAE_GPU_TESTS_ON": "cpu",
        "FQVAE_PRETEND_GPU": "1",
        "TRITON_CACHE_DIR": str(cache),
        "TRITON_STORE_BINARY_ONLY": "1",
    }
    writer = Lines(lines, fresh=True)

    def cases(name: str, **more: str) -> None:
        share_out(
            f"gpu_check.{name}_cases", ("triton",), writer.write, PATIENCE, processes, **variables, **more
        )

    cases("sizes")
    cases("smoke", FQVAE_SHORT_SMOKE="1")
    status = 0
    if not quick:
        cases("smoke")
        cases("timing")
        # What PyTorch's own compiler asks for besides is not ours to compile ahead.
        more = ("-k", "not inductor")
        status = device_tests.run(device_tests.command(lines, "gpu", "triton", processes, *more), **variables)
    return status == 0 and not any("error" in line for line in read(lines))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "count"))
    parser.add_argument(
        "--archive", type=Path, default=packed.FOLDER / packed.CACHE, help="default: %(default)s"
    )
    parser.add_argument("--processes", type=int, default=cores(), help="default: one for each core")
    parser.add_argument("--quick", action="store_true", help="a part only, to see that it works")
    options = parser.parse_args(argv)
    if os.environ.get("TRITON_INTERPRET"):
        parser.error("TRITON_INTERPRET is set: interpreted kernels are not compiled")
    with tempfile.TemporaryDirectory(prefix="fqvae-triton-") as folder:
        cache, lines = Path(folder, "cache"), Path(folder, "lines.jsonl")
        cache.mkdir()
        if options.archive.exists():
            packed.unpack(options.archive, cache)
        well = ask(cache, lines, options.processes, options.quick)
        asked, compiled = found(lines)
        if options.what == "make":
            options.archive.parent.mkdir(parents=True, exist_ok=True)
            packed.pack(cache, options.archive, asked)
            size = options.archive.stat().st_size / 1e6
            print(f"Written: {options.archive}, {len(asked)} programs, {size:.1f} MB")
        else:
            print(f"{len(asked)} different programs asked for, {len(compiled)} not in the cache")
            print("".join(f"  {name}\n" for name in sorted(compiled)), end="")
        for line in read(lines):
            if "error" in line or line.get("outcome") == "failed":
                print(f"went wrong: {line}")
    return int(not well or (options.what == "count" and bool(compiled)))


def found(lines: Path) -> tuple[set[str], set[str]]:
    """The programs asked for, and those compiled because no cache had them."""
    read_lines = read(lines)
    asked = {name for line in read_lines for name in line.get("asked", ())}
    return asked, {name for line in read_lines for name in line.get("compiled", ())}


if __name__ == "__main__":
    sys.exit(main())
