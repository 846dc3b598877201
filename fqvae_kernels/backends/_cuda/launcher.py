"""What runs the kernels: the compiled extension on a GPU, or in tests something that stands in for one."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fqvae_kernels._build_info import why_no_cuda
from fqvae_kernels.backends._cuda.geometry import Device
from fqvae_kernels.backends._cuda.support import why_unsupported


class Launch(NamedTuple):
    """A kernel and how it is launched: all of it that shapes decide.

    shared: bytes of dynamic shared memory. reads: of the tensors that its arguments point to, so many are
    only read; those behind them are written.
    """

    kernel: str
    blocks: tuple[int, int]
    shared: int
    reads: int


class Launcher(Protocol):
    """Runs kernels by name on tensors of the devices that it serves."""

    def __hash__(self) -> int:
        """Plans are kept for each launcher."""
        return id(self)

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        """Why it cannot serve this device (None: any device here), or None."""

    def describe(self, device: torch.device) -> Device:
        """What the geometry of a launch depends on."""

    def launch(
        self, launch: Launch, arguments: bytes, tensors: tuple[Tensor | None, ...], device: torch.device
    ) -> None:
        """Start a kernel on the device's current stream.

        arguments: the struct that it takes by value. tensors: what the struct points to.
        """


class Extension:
    """The kernels of the extension module fqvae_kernels._cuda, on NVIDIA GPUs."""

    def __init__(self) -> None:
        self._module: ModuleType | None = None
        self._failure = ""
        self._numbers: dict[str, int] = {}  # of the kernels
        self._reasons: dict[int, str | None] = {}  # why it cannot serve a GPU
        try:
            self._module = importlib.import_module("fqvae_kernels._cuda")
            self._numbers = {name: number for number, name in enumerate(self._module.KERNELS)}
        except ModuleNotFoundError:
            self._failure = f"its extension is not built: {why_no_cuda()}"
        except ImportError as error:
            self._failure = f"its extension does not load: {error}"

    @property
    def module(self) -> ModuleType | None:
        """The extension module, or None."""
        return self._module

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        """See `Launcher`. Each GPU is asked once."""
        if self._module is None:
            return self._failure
        if device is not None and device.type != "cuda":
            return "it serves CUDA tensors only"
        reason = _why_no_gpu()
        if reason is not None:
            return reason
        if device is not None:
            index = torch.cuda.current_device() if device.index is None else device.index
            return self._reason_of(self._module, index)
        reasons = [self._reason_of(self._module, index) for index in range(torch.cuda.device_count())]
        return None if None in reasons else reasons[0]

    def describe(self, device: torch.device) -> Device:
        """See `Launcher`."""
        return _describe(device.index)

    def launch(
        self, launch: Launch, arguments: bytes, tensors: tuple[Tensor | None, ...], device: torch.device
    ) -> None:
        """See `Launcher`. Raises RuntimeError, which names the kernel, if the launch fails."""
        assert self._module is not None
        kernel, blocks, shared, _ = launch
        index = device.index
        stream = torch._C._cuda_getCurrentRawStream(index)
        self._module.launch(self._numbers[kernel], *blocks, shared, arguments, index, stream)

    def _reason_of(self, module: ModuleType, index: int) -> str | None:
        if index not in self._reasons:
            self._reasons[index] = why_unsupported(
                module.driver_version(),
                module.CUDA_VERSION,
                module.ARCHITECTURES,
                torch.cuda.get_device_capability(index),
            )
        return self._reasons[index]


@functools.cache
def _why_no_gpu() -> str | None:
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device (no GPU, or no driver)"
    return None


@functools.cache
def _describe(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    # Older releases of PyTorch do not say how much shared memory there is: then as on the smallest GPUs.
    shared = getattr(properties, "shared_memory_per_multiprocessor", 64 * 1024)
    return Device(properties.multi_processor_count, shared)
