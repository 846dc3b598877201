"""Where the stages run: on a GPU, on the CPU that stands in for one, or with a GPU that is only pretended."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ON_CPU = os.environ.get("FQVAE_GPU_TESTS_ON") == "cpu"
# See pretend.py: calls have the sizes of a GPU's, though the CPU computes them.
PRETENDED = bool(os.environ.get("FQVAE_PRETEND_GPU"))
# The backends under test, and what each is held against.
BACKENDS = ("cpu", "reference") if ON_CPU else ("cuda", "triton")


def expected_backend(backend: str) -> str:
    """Another one than that under test: the CPU's kernels, or where they are not built the plain formula."""
    from fqvae_kernels import backends

    if backend == "cpu" or backends.unavailable_reason("cpu") is not None:
        return "reference"
    return "cpu"


def device_name() -> str:
    return "cpu" if ON_CPU else "cuda"


def has_gpu() -> bool:
    """Whether the machine shows one; PyTorch, which takes seconds to import, is not asked."""
    devices = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
    return shutil.which("nvidia-smi") is not None or any(device.exists() for device in devices)


def device_is_broken() -> bool:
    """Whether an earlier error has made the GPU useless to this process, as a stray access does."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False
