"""Stage facts: the machine and its software, as text, command by command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

VERSIONS = """
import importlib.metadata as m
names = "torch triton numpy scipy scikit-learn pytest pytest-xdist hypothesis vector-quantize-pytorch"
for name in names.split():
    try:
        print(f"{name:<24} {m.version(name)}")
    except m.PackageNotFoundError:
        print(f"{name:<24} not installed")
"""
DEVICE = """
import torch
print("torch.version.cuda", torch.version.cuda, "hip", torch.version.hip)
if torch.cuda.is_available():
    print(torch.cuda.get_device_properties(0), torch.cuda.get_device_capability(0))
    x = torch.ones(1000, device="cuda")
    print("a sum on the device:", x.sum().item())
else:
    print("PyTorch finds no CUDA device")
"""
# The quick ones first: what takes long may be cut off.
COMMANDS = (
    ["nvidia-smi"],
    [sys.executable, "-c", VERSIONS],
    ["nvcc", "--version"],
    [sys.executable, "-m", "fqvae_kernels"],
    [sys.executable, "-c", DEVICE],
    ["nvidia-smi", "-q", "-d", "CLOCK,POWER,MEMORY,ECC"],
    ["lscpu"],
)


def tell(command: list[str], file: BinaryIO) -> bool:
    """Runs a command into the file; False where it failed."""
    shown = command if command[1:2] != ["-c"] else [command[0], "-c", "..."]
    file.write(f"$ {' '.join(shown)}\n".encode())
    try:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    except OSError as error:
        file.write(f"{error}\n\n".encode())
        return False
    file.write(f"(exit {code})\n\n".encode())
    return code == 0


def main() -> int:
    out = Path(sys.argv[1])
    with (out / "facts.txt").open("wb", buffering=0) as file:
        failed = [command[0] for command in COMMANDS if not tell(command, file)]
    names = ", ".join(sorted({Path(name).name for name in failed}))
    missing = f"; not {names}" if names else ""
    print(f"{len(COMMANDS) - len(failed)} of {len(COMMANDS)} commands answered{missing}")
    return int(sys.executable in failed)


if __name__ == "__main__":
    sys.exit(main())
