"""The backends: one module each, all with the same face, and the choice between them.

A backend gets arguments that are checked: input contiguous, codebook contiguous and in the compute dtype
(float64 for float64 input, else float32), every tensor on a device it serves. It knows nothing of autograd,
unless it is `differentiable`: plain PyTorch operations that autograd and torch.compile see through.
"""

from __future__ import annotations

import functools
from typing import Protocol, TypeGuard, cast

import torch
from torch import Tensor

from fqvae_kernels._types import GumbelCall
from fqvae_kernels.backends import cpu, cuda, reference, triton

GumbelOutputs = tuple[Tensor, Tensor, Tensor, Tensor | None]
GumbelGradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Backend(Protocol):
    """What every backend module offers."""

    name: str
    differentiable: bool

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        """Why it cannot serve tensors on this device (None: on any device here), or None if it can."""

    def gumbel_forward(
        self, input: Tensor, codebook: Tensor, call: GumbelCall, stats: Tensor | None
    ) -> GumbelOutputs:
        """quantized, indices, kl, weights or None. stats, if not None, get what the backward pass wants."""

    def nearest_forward(self, z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        """quantized, indices."""

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

    Its stats are a tensor (stats_rows, N) in the compute dtype that only itself understands, and of which it
    may leave parts as they were.
    """

    stats_rows: int

    def gumbel_backward(
        self,
        input: Tensor,
        codebook: Tensor,
        call: GumbelCall,
        indices: Tensor,
        stats: Tensor,
        grad_quantized: Tensor | None,
        grad_kl: Tensor | None,
        grad_weights: Tensor | None,
        needs: tuple[bool, bool, bool],
    ) -> GumbelGradients:
        """Gradients of input (its dtype), codebook (compute dtype), temperature (float64), where needed."""


# Best first.
NAMES = ("cuda", "triton", "cpu", "reference")

_MODULES: dict[str, Backend] = {
    "cuda": cast(Backend, cuda),
    "triton": cast(Backend, triton),
    "cpu": cast(Backend, cpu),
    "reference": cast(Backend, reference),
}
# Those among which backend=None chooses, by the kind of device: a simulated GPU serves only by its name.
CANDIDATES = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}


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
        return _best(device)
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
def _best(device: torch.device) -> Backend:
    """The first that serves this one; the reference serves every device. Two GPUs of a machine may differ."""
    names = CANDIDATES.get(device.type, ("reference",))
    return next(_MODULES[name] for name in names if unavailable_reason(name, device) is None)


def _serving(device: torch.device | None) -> tuple[str, ...]:
    serving = [name for name in NAMES if unavailable_reason(name, device) is None]
    # Interpreted kernels are a tool for tests: the last choice.
    return tuple(sorted(serving, key=lambda name: name == "triton" and triton.interpreted()))
