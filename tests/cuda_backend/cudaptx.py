"""A launcher that runs the CUDA kernels' PTX on the CPU.

What the CUDA backend launches, it hands to the runner in tests/ptx with the same arguments. CPU tensors then
stand for device memory.
"""

import contextlib
import functools
import re

import nvcc
import ptx

from fqvae_kernels.backends import cuda
from fqvae_kernels.backends._cuda.geometry import Device


@functools.cache
def sources() -> dict[str, str]:
    """The file of csrc/cuda in which each kernel is."""
    return {
        kernel: source
        for source in nvcc.SOURCES
        for kernel in re.findall(r"\.entry (\w+)\(", nvcc.compiled(source, "sm_90").read_text())
    }


@functools.cache
def kernel(name: str, arch: str) -> ptx.Kernel:
    return ptx.load(nvcc.compiled(sources()[name], arch).read_text(), name)


class PtxLauncher:
    """Runs kernels on the CPU. checks: options of a launch (race, order, seed, jitter)."""

    def __init__(self, arch="sm_90", multiprocessors=2, **checks):
        self.arch, self.processors, self.checks = arch, multiprocessors, checks
        self.launched = []

    def unavailable_reason(self, device):
        return None if device is None or device.type == "cpu" else "it stands for a GPU on CPU tensors"

    def describe(self, device):
        return Device(self.processors, 228 * 1024)

    def launch(self, launch, arguments, tensors, device):
        name, blocks, shared, reads = launch
        buffers = [
            (tensor, number >= reads)
            for number, tensor in enumerate(tensors)
            if tensor is not None and tensor.numel()
        ]
        stats = kernel(name, self.arch)(blocks, 128, [arguments], shared, buffers=buffers, **self.checks)
        assert stats.races == 0, f"{name}: {stats.race}"
        assert stats.barriers_with_exited == 0, f"{name}: a thread leaves before a barrier"
        assert stats.collectives_with_exited == 0, f"{name}: a thread leaves before a collective"
        self.launched.append(name)


@contextlib.contextmanager
def running_ptx(arch="sm_90", multiprocessors=2, **checks):
    """Within it, backend="cuda" takes CPU tensors. Yields the launcher."""
    before = cuda.launcher
    cuda.launcher = PtxLauncher(arch, multiprocessors, **checks)
    try:
        yield cuda.launcher
    finally:
        cuda.launcher = before
