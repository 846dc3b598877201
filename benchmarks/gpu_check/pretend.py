"""Backend "triton" without a GPU: it asks for its programs as on one, and the CPU's kernels give the results.

Triton gets a driver that says "compute capability 9.0", loads nothing and starts nothing. All before that is
Triton's own: JITFunction.run specialises, looks into the cache, compiles what is not there. The key of a
program is therefore the one that a GPU's process computes with the same release of Triton.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels._call import Call, Incoming, Kept, Needs

CAPABILITY = 90


def install() -> None:
    """Makes Triton's driver the pretended one, and backend "triton" serve CPU tensors."""
    os.environ.pop("TRITON_INTERPRET", None)
    import triton

    from fqvae_kernels import backends

    # Imported now, so that they are compiled kernels, whatever comes after.
    from fqvae_kernels.backends._triton import backward, drawn, forward, noise  # noqa: F401

    if not isinstance(forward.nearest_kernel, triton.JITFunction):
        raise RuntimeError("the kernels were imported before, to be interpreted")
    triton.runtime.driver.set_active(Driver())
    backends._MODULES["triton"] = Asking()
    backends._find_best.cache_clear()


class Driver:
    """What Triton's runtime asks of a driver, for a device that does nothing."""

    def __init__(self) -> None:
        self.utils = SimpleNamespace(
            load_binary=lambda name, kernel, shared, device: (1, 1, 32, 0, 1024),
            get_device_properties=lambda device: {
                "max_shared_mem": 232_448,
                "multiprocessor_count": 132,
                "warpSize": 32,
            },
        )

    @staticmethod
    def launcher_cls(src: Any, metadata: Any) -> Any:
        keep_launcher(src, metadata)
        return lambda *_: None

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", CAPABILITY, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: Any = None) -> int:
        return 0

    def get_device_capability(self, device: Any = None) -> tuple[int, int]:
        return CAPABILITY // 10, CAPABILITY % 10

    def set_current_device(self, device: Any) -> None:
        return


def keep_launcher(src: Any, metadata: Any) -> None:
    """Compiles the C module by which Triton starts a program, as it would at the first start, into the cache.

    Releases whose launcher is made otherwise are left alone: they make it on the device.
    """
    from triton.backends.nvidia import driver as nvidia

    if not hasattr(nvidia, "make_launcher"):
        return
    constants = {(i,) if isinstance(i, int) else i: value for i, value in src.constants.items()}
    with contextlib.suppress(TypeError):
        text = nvidia.make_launcher(
            constants, dict(src.signature), getattr(metadata, "tensordesc_meta", None)
        )
        _keep_module(text, "__triton_launcher")
        _keep_module(Path(nvidia.dirname, "driver.c").read_text(), "cuda_utils")


def _keep_module(source: str, name: str) -> None:
    from triton.backends.nvidia import driver as nvidia
    from triton.runtime import build
    from triton.runtime.cache import get_cache_manager

    cache = get_cache_manager(hashlib.sha256((source + build.platform_key()).encode()).hexdigest())
    file = f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if cache.get_file(file) is not None:
        return
    with tempfile.TemporaryDirectory() as folder:
        # The linker wants the driver's library, of which a module needs the name alone.
        empty = Path(folder, "empty.c")
        empty.write_text("")
        library = [str(Path(folder, "libcuda.so.1")), "-Wl,-soname,libcuda.so.1"]
        subprocess.run(["gcc", "-shared", str(empty), "-o", *library], check=True)
        path = Path(folder, f"{name}.c")
        path.write_text(source)
        libraries, includes = [nvidia.libdevice_dir, folder], nvidia.include_dirs
        # A linker may leave out a library that gives nothing, and the stand-in gives nothing.
        flags = ["-Wl,--no-as-needed", "-l:libcuda.so.1"]
        module = build._build(name, str(path), folder, libraries, includes, nvidia.libraries, flags)
        cache.put(Path(module).read_bytes(), file, binary=True)


class Asking:
    """A backend that calls Triton's for the programs and the CPU's for the results."""

    name = "triton"
    differentiable = False

    def __init__(self) -> None:
        from fqvae_kernels.backends import cpu, triton

        self._triton, self._cpu = triton, cpu
        self.stats_rows = cpu.stats_rows
        self.devices = ("cpu",)

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        return self._cpu.unavailable_reason(device)

    def forward(self, input: Tensor, codebook: Tensor, call: Call, stats: Tensor | None) -> Any:
        for variant in variants(call):
            self._triton.forward(input, codebook, variant, self._like(stats, call))
        return self._cpu.forward(input, codebook, call, stats)

    def backward(
        self, input: Tensor, codebook: Tensor, call: Call, kept: Kept, incoming: Incoming, needs: Needs
    ) -> Any:
        like = kept._replace(stats=self._like(kept.stats, call))
        for variant in variants(call):
            self._triton.backward(input, codebook, variant, like, incoming, needs)
        return self._cpu.backward(input, codebook, call, kept, incoming, needs)

    def gumbel_noise(self, seed: Any, *rest: Any) -> Tensor:
        for value in (seed, torch.tensor(0)):
            self._triton.gumbel_noise(value, *rest)
        return self._cpu.gumbel_noise(seed, *rest)

    def _like(self, stats: Any, call: Call) -> Any:
        return None if stats is None else stats.new_empty((self._triton.stats_rows(call), *stats.shape[1:]))


def variants(call: Call) -> list[Call]:
    """The call with its seed and temperature as numbers and as tensors of the device.

    Which of them a GPU would get can't be told here, where every tensor is on the CPU. Where a program serves
    them all, these are one.
    """
    seeds = (1, torch.tensor(1))
    dtype = call.temperature.dtype if isinstance(call.temperature, Tensor) else torch.float32
    temperatures = (0.5, torch.tensor(0.5, dtype=dtype))
    return [
        call._replace(seed=seed, temperature=temperature)
        for seed, temperature in itertools.product(seeds, temperatures)
    ]
