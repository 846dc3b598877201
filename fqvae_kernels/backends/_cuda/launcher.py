"""What runs the kernels: the compiled extension on a GPU, or in tests something that stands in for one."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Protocol

import torch

from fqvae_kernels._build_info import why_no_cuda
from fqvae_kernels.backends._cuda.arguments import Arguments


class Launcher(Protocol):
    """Runs kernels by name on tensors of the devices that it serves."""

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        """Why it cannot serve this device (None: any device here), or None."""

    def multiprocessors(self, device: torch.device) -> int:
        """How many the device has."""

    def launch(
        self,
        kernel: str,
        blocks: tuple[int, int],
        shared: int,
        arguments: Arguments,
        device: torch.device,
    ) -> None:
        """Start a kernel on the device's current stream; `shared` bytes of dynamic shared memory."""


class Extension:
    """The kernels of the extension module fqvae_kernels._cuda, on NVIDIA GPUs."""

    def __init__(self) -> None:
        self._module: ModuleType | None = None
        self._failure = ""
        try:
            self._module = importlib.import_module("fqvae_kernels._cuda")
        except ModuleNotFoundError:
            self._failure = f"its extension is not built: {why_no_cuda()}"
        except ImportError as error:
            self._failure = f"its extension does not load: {error}"

    @property
    def module(self) -> ModuleType | None:
        """The extension module, or None."""
        return self._module

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        """See `Launcher`."""
        if self._module is None:
            return self._failure
        if device is not None and device.type != "cuda":
            return "it serves CUDA tensors only"
        return _why_no_gpu()

    def multiprocessors(self, device: torch.device) -> int:
        """See `Launcher`."""
        return _multiprocessors(device.index)

    def launch(
        self,
        kernel: str,
        blocks: tuple[int, int],
        shared: int,
        arguments: Arguments,
        device: torch.device,
    ) -> None:
        """See `Launcher`. Raises RuntimeError, which names the kernel, if the launch fails."""
        assert self._module is not None
        stream = torch.cuda.current_stream(device).cuda_stream
        self._module.launch(kernel, *blocks, shared, arguments.packed, device.index, stream)


@functools.cache
def _why_no_gpu() -> str | None:
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device (no GPU, or no driver)"
    return None


@functools.cache
def _multiprocessors(index: int) -> int:
    count: int = torch.cuda.get_device_properties(index).multi_processor_count
    return count
