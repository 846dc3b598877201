"""The native CPU kernels as a backend: raw pointers in, outputs from torch.empty."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

import torch
from torch import Tensor

from fqvae_kernels._build_info import why_not_built
from fqvae_kernels._seeds import seed_to_int
from fqvae_kernels._types import GumbelCall

name = "cpu"
differentiable = False

_DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

_native: ModuleType | None = None
_load_failure = ""
try:
    _native = importlib.import_module("fqvae_kernels._native")
except ModuleNotFoundError:
    _load_failure = f"its native extension is not built: {why_not_built()}"
except ImportError as error:
    _load_failure = f"its native extension does not load: {error}"
    warnings.warn(f"fqvae_kernels has no cpu backend: {_load_failure}", RuntimeWarning, stacklevel=2)


# What the forward pass keeps of a row for the backward pass.
stats_rows: int = 0 if _native is None else _native.ROW_SUMS


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


def gumbel_forward(
    input: Tensor, codebook: Tensor, call: GumbelCall, stats: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """See `fqvae_kernels.backends.Backend`."""
    # empty_like costs a third of an empty that is told shape, dtype and device.
    quantized = input.new_empty(input.shape[:-1]) if call.is_logits else torch.empty_like(input)
    indices = torch.empty_like(quantized, dtype=torch.int64)
    kl = torch.empty_like(quantized, dtype=codebook.dtype)
    rows = kl.numel()
    weights = input.new_empty((*kl.shape, codebook.shape[-1])) if call.want_weights else None
    native().gumbel_forward(
        *_common_arguments(input, codebook, call, rows),
        quantized.data_ptr(),
        indices.data_ptr(),
        kl.data_ptr(),
        _pointer(weights),
        _pointer(stats),
        torch.get_num_threads(),
    )
    return quantized, indices, kl, weights


def gumbel_backward(
    input: Tensor,
    codebook: Tensor,
    call: GumbelCall,
    indices: Tensor,
    stats: Tensor,
    grad_quantized: Tensor | None,
    grad_kl: Tensor | None,
    grad_weights: Tensor | None,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See `fqvae_kernels.backends.KernelBackend`."""
    grad_input = torch.empty_like(input) if needs[0] else None
    grad_codebook = torch.empty_like(codebook) if needs[1] else None
    grad_temperature = torch.empty((), dtype=torch.float64, device="cpu") if needs[2] else None
    native().gumbel_backward(
        *_common_arguments(input, codebook, call, indices.numel()),
        indices.data_ptr(),
        stats.data_ptr(),
        _pointer(grad_quantized),
        _pointer(grad_kl),
        _pointer(grad_weights),
        _pointer(grad_input),
        _pointer(grad_codebook),
        _pointer(grad_temperature),
        torch.get_num_threads(),
    )
    return grad_input, grad_codebook, grad_temperature


def nearest_forward(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """See `fqvae_kernels.backends.Backend`."""
    quantized = torch.empty_like(z)
    indices = torch.empty_like(z, dtype=torch.int64)
    native().nearest_forward(
        z.data_ptr(),
        _DTYPE_CODES[z.dtype],
        codebook.data_ptr(),
        z.numel(),
        codebook.shape[-1],
        _codebooks(codebook),
        quantized.data_ptr(),
        indices.data_ptr(),
        torch.get_num_threads(),
    )
    return quantized, indices


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


def _common_arguments(
    input: Tensor, codebook: Tensor, call: GumbelCall, rows: int
) -> tuple[int, int, bool, int, int, int, int, int, int, float, bool]:
    """What the native forward and backward begin with, in their order."""
    temperature = call.temperature
    return (
        input.data_ptr(),
        _DTYPE_CODES[input.dtype],
        call.is_logits,
        codebook.data_ptr(),
        rows,
        codebook.shape[-1],
        _codebooks(codebook),
        seed_to_int(call.seed),
        call.row_offset,
        temperature.item() if isinstance(temperature, Tensor) else temperature,
        call.hard,
    )


def _codebooks(codebook: Tensor) -> int:
    return codebook.shape[0] if codebook.dim() == 2 else 1


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
