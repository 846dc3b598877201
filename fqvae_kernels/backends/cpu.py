"""The native CPU kernels as a backend: raw pointers in, outputs from torch.empty."""

from __future__ import annotations

import importlib
import math
import struct
import warnings
from types import ModuleType

import torch
from torch import Tensor

from fqvae_kernels._build_info import why_not_built
from fqvae_kernels._call import ESTIMATORS, Call, Gradients, Incoming, Kept, Needs, Outputs, Tally
from fqvae_kernels._seeds import seed_to_int
from fqvae_kernels._tensors import DTYPE_CODES, address, codebooks

name = "cpu"
differentiable = False
devices = ("cpu",)

# As `Estimator` in csrc/call.h numbers them.
_ESTIMATOR_CODES = {name: number for number, name in enumerate(ESTIMATORS)}
# `Call` of csrc/call.h, and the addresses that stand behind it in the arguments of each pass (bindings.cpp).
_CALL = "4P2Q3d2q6i"
_FORWARD = struct.Struct(_CALL + "5P")
_BACKWARD = struct.Struct(_CALL + "9P")

_native: ModuleType | None = None
_load_failure = ""
try:
    _native = importlib.import_module("fqvae_kernels._native")
except ModuleNotFoundError:
    _load_failure = f"its native extension is not built: {why_not_built()}"
except ImportError as error:
    _load_failure = f"its native extension does not load: {error}"
    warnings.warn(f"fqvae_kernels has no cpu backend: {_load_failure}", RuntimeWarning, stacklevel=2)


def stats_rows(call: Call) -> int:
    """See `fqvae_kernels.backends.KernelBackend`."""
    return int(native().STATS) if call.estimator == "gumbel" else 0


def unavailable_reason(device: torch.device | None) -> str | None:
    """Why the kernels cannot serve this device, or None."""
    if _native is None:
        return _load_failure
    if device is not None and device.type != "cpu":
        return "it serves CPU tensors only"
    return None


def native() -> ModuleType:
    """The native module. Raises RuntimeError where it does not exist."""
    if _native is None:
        raise RuntimeError(f"backend 'cpu' is not available: {_load_failure}")
    return _native


def forward(input: Tensor, codebook: Tensor, call: Call, stats: Tensor | None) -> Outputs:
    """See `fqvae_kernels.backends.Backend`."""
    wants, sampling = call.wants, call.estimator != "nearest"
    # empty_like costs a third of an empty that is told shape, dtype and device.
    row = input.new_empty(input.shape[:-1]) if call.is_logits else torch.empty_like(input)
    quantized = row if wants.quantized else None
    indices = torch.empty_like(row, dtype=torch.int64) if wants.indices else None
    kl = torch.empty_like(row, dtype=codebook.dtype) if wants.kl and sampling else None
    weights = input.new_empty((*row.shape, codebook.shape[-1])) if wants.weights and sampling else None
    packed = pack_forward(input, codebook, call, quantized, indices, kl, weights, stats)
    native().forward(packed, torch.get_num_threads())
    return quantized, indices, kl, weights


def nearest_counted(z: Tensor, codebook: Tensor, call: Call, tally: Tally) -> tuple[Tensor, Tensor]:
    """`forward` of a call of the estimator "nearest", which counts its indices as `count_codes` does."""
    quantized, indices = torch.empty_like(z), torch.empty_like(z, dtype=torch.int64)
    packed = pack_forward(z, codebook, call, quantized, indices, None, None, None)
    native().forward_counted(packed, tally.latents, tally.table.data_ptr(), torch.get_num_threads())
    return quantized, indices


def backward(
    input: Tensor, codebook: Tensor, call: Call, kept: Kept, incoming: Incoming, needs: Needs
) -> Gradients:
    """See `fqvae_kernels.backends.KernelBackend`."""
    grad_input = torch.empty_like(input) if needs.input else None
    grad_codebook = torch.empty_like(codebook) if needs.codebook else None
    grad_temperature = torch.empty((), dtype=torch.float64, device="cpu") if needs.temperature else None
    gradients = grad_input, grad_codebook, grad_temperature
    packed = pack_backward(input, codebook, call, kept, incoming, gradients)
    native().backward(packed, torch.get_num_threads())
    return gradients


def pack_forward(
    input: Tensor,
    codebook: Tensor,
    call: Call,
    quantized: Tensor | None,
    indices: Tensor | None,
    kl: Tensor | None,
    weights: Tensor | None,
    stats: Tensor | None,
) -> bytes:
    """What the native `forward` takes: its outputs go to these tensors, those that are None to none."""
    return _FORWARD.pack(
        *_call_fields(input, codebook, call),
        address(quantized),
        address(indices),
        address(kl),
        address(weights),
        address(stats),
    )


def pack_backward(
    input: Tensor, codebook: Tensor, call: Call, kept: Kept, incoming: Incoming, gradients: Gradients
) -> bytes:
    """What the native `backward` takes: the gradients go to these tensors."""
    grad_input, grad_codebook, grad_temperature = gradients
    return _BACKWARD.pack(
        *_call_fields(input, codebook, call),
        kept.indices.data_ptr(),
        kept.stats.data_ptr(),
        address(kept.weights),
        address(incoming.quantized),
        address(incoming.kl),
        address(incoming.weights),
        address(grad_input),
        address(grad_codebook),
        address(grad_temperature),
    )


def gumbel_noise(
    seed: int | Tensor, rows: int, codes: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """See `fqvae_kernels.backends.Backend`."""
    noise = torch.empty((rows, codes), dtype=dtype, device="cpu")
    native().gumbel_noise(
        seed_to_int(seed),
        row_offset,
        rows,
        codes,
        dtype == torch.float64,
        noise.data_ptr(),
        torch.get_num_threads(),
    )
    return noise


def count_codes(indices: Tensor, tally: Tally) -> None:
    """Add to the tally how often each code is in indices (..., latents), int64 and contiguous.

    What is not in [0, codes) counts nothing.
    """
    table, latents = tally
    native().count_codes(
        indices.data_ptr(),
        indices.numel(),
        latents,
        table.shape[-1],
        table.data_ptr(),
        torch.get_num_threads(),
    )


def _call_fields(input: Tensor, codebook: Tensor, call: Call) -> tuple[int | float, ...]:
    """The fields of `Call` in csrc/call.h, in their order."""
    temperature = call.temperature
    codes = codebook.shape[-1]
    return (
        input.data_ptr(),
        codebook.data_ptr(),
        0,
        0,
        seed_to_int(call.seed),
        call.row_offset,
        temperature.item() if isinstance(temperature, Tensor) else temperature,
        math.log2(codes),
        math.log(codes),
        input.numel() // codes if call.is_logits else input.numel(),
        codebooks(codebook),
        codes,
        DTYPE_CODES[input.dtype],
        0,
        _ESTIMATOR_CODES[call.estimator],
        call.hard,
        call.is_logits,
    )
