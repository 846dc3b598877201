"""The backends: one module each, all with the same face, and the choice between them.

A backend gets arguments that are checked: input contiguous, codebook contiguous and in the compute dtype
(float64 for float64 input, else float32), both on one device that it serves; seed and temperature are
numbers, or tensors there or on the CPU. It knows nothing of autograd, unless it is `differentiable`: plain
PyTorch operations that autograd and torch.compile see through.
"""

from __future__ import annotations

import functools
from typing import Protocol, TypeGuard, cast

import torch
from torch import Tensor

from fqvae_kernels._call import Call, Gradients, Incoming, Kept, Needs, Outputs
from fqvae_kernels.backends import cpu, cuda, reference, triton


class Backend(Protocol):
    """What every backend module offers.

    devices: the types of device for whose tensors backend=None may take it, None for all.
    """

    name: str
    devices: tuple[str, ...] | None
    differentiable: bool

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        """Why it cannot serve tensors on this device (None: on any device here), or None if it can."""

    def forward(self, input: Tensor, codebook: Tensor, call: Call, stats: Tensor | None) -> Outputs:
        """The outputs that the call wants. stats, if not None, get what the backward pass wants to know."""

    def gumbel_noise(
        self,
        seed: int | Tensor,
        rows: int,
        codes: int,
        row_offset: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """The noise of the Gumbel pass, (rows, codes), float32 or float64."""


class KernelBackend(Backend, Protocol):
    """What a backend that is not differentiable offers as well.

    Its stats are a tensor (stats_rows(call), N) in the compute dtype that only itself understands, and of
    which it may leave parts as they were.
    """

    def stats_rows(self, call: Call) -> int:
        """How many numbers a row the forward pass keeps for the backward pass; call.needs tell of which."""

    def backward(
        self,
        input: Tensor,
        codebook: Tensor,
        call: Call,
        kept: Kept,
        incoming: Incoming,
        needs: Needs,
    ) -> Gradients:
        """The gradients needed, which are among call.needs. kept: of the forward pass of the same call."""


# All of them, best first.
_BACKENDS = (cuda, triton, cpu, reference)

_MODULES: dict[str, Backend] = {module.name: cast(Backend, module) for module in _BACKENDS}
NAMES = tuple(_MODULES)


def candidates(device_type: str) -> tuple[str, ...]:
    """The backends among which backend=None chooses for such a device."""
    return tuple(
        name for name, module in _MODULES.items() if module.devices is None or device_type in module.devices
    )


def is_kernel(backend: Backend) -> TypeGuard[KernelBackend]:
    """Whether the backend is called as a forward/backward pair."""
    return not backend.differentiable


def get(name: str) -> Backend:
    """The backend of this name; whether it serves is not asked. Raises ValueError for an unknown name."""
    if name not in _MODULES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, _MODULES))}, but was {name!r}")
    return _MODULES[name]


def kernel(name: str) -> KernelBackend:
    """The same, for a backend that is called as a forward/backward pair; ValueError for another."""
    backend = get(name)
    if not is_kernel(backend):
        raise ValueError(f"backend {name!r} has no kernels")
    return backend


def unavailable_reason(name: str, device: torch.device | None = None) -> str | None:
    """Why the backend of this name cannot serve the device (None: any device here), or None if it can."""
    return _MODULES[name].unavailable_reason(device)


# torch.compile then calls the function while it traces, instead of looking into compiled modules. This is all
# that torch.compiler.assume_constant_result does, besides importing the compiler, which takes seconds.
unavailable_reason._dynamo_marked_constant = True  # type: ignore[attr-defined]


def available_backends() -> tuple[str, ...]:
    """Which of "cuda", "triton", "cpu" and "reference" serve on this machine, best first."""
    return _serving(None)


def choose(name: str | None, device: torch.device) -> Backend:
    """The backend of this name, or the best one for the device, which is a tensor's: a GPU's has its index.

    Raises ValueError for an unknown name, RuntimeError for one that cannot serve the device.
    """
    if name is None:
        return _MODULES[_best(device)]
    if name not in NAMES:
        raise ValueError(f"backend must be None or one of {', '.join(map(repr, NAMES))}, but was {name!r}")
    reason = unavailable_reason(name, device)
    if reason is not None:
        others = ", ".join(map(repr, _serving(device)))
        raise RuntimeError(
            f"backend {name!r} cannot serve tensors on device {str(device)!r}: {reason}. "
            f"Available there: {others} (backend=None takes the first)"
        )
    return _MODULES[name]


@functools.cache
def _find_best(device: torch.device) -> str:
    """The first that serves this device; the reference serves every one. Two GPUs of a machine may differ."""
    return next(name for name in candidates(device.type) if unavailable_reason(name, device) is None)


def _best(device: torch.device) -> str:
    return _find_best(device)


# torch.compile would look into the cache, and warn.
_best._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _serving(device: torch.device | None) -> tuple[str, ...]:
    serving = [name for name in NAMES if unavailable_reason(name, device) is None]
    # Interpreted kernels are a tool for tests: the last choice.
    return tuple(sorted(serving, key=lambda name: name == "triton" and triton.interpreted()))
