"""The structs of csrc/cuda/arguments.h as bytes.

Those that begin with a `Call` are packed by `call_struct`: what every call brings anew stands alone, and what
follows from shapes is one field, packed once for a plan.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from fqvae_kernels._seeds import seed_to_int
from fqvae_kernels._types import GumbelCall
from fqvae_kernels.backends._cuda.geometry import Geometry

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

_SHAPE = struct.Struct("<d4q4i")  # of `Call`: log2_codes ... dtype
_NOISE = struct.Struct("<3Qq2iQ")
_REDUCE_JOB = struct.Struct("<Q2qQ2i")
_SLOPES = struct.Struct("<4Qq2i")


def call_struct(addresses: int) -> struct.Struct:
    """A struct of a `Call` and so many addresses; its fields are those of `pack_call`."""
    return struct.Struct(f"<6Qd{_SHAPE.size}s4i{addresses}Q")


def call_shape(
    log2_codes: float,
    rows: int,
    begin: int,
    end: int,
    codebooks: int,
    codes: int,
    geometry: Geometry,
    dtype: torch.dtype,
) -> bytes:
    """What of a `Call` follows from shapes, for the launch that takes rows begin ... end - 1."""
    return _SHAPE.pack(
        log2_codes, rows, begin, end, codebooks, codes, geometry.staged, geometry.lanes, DTYPE_CODES[dtype]
    )


def pack_call(
    layout: struct.Struct,
    shape: bytes,
    input: Tensor,
    codebook: Tensor,
    call: GumbelCall,
    vectors: bool,
    behind: tuple[Tensor | None, ...],
) -> tuple[bytes, tuple[Tensor | None, ...]]:
    """A struct of a `Call` and the addresses of the tensors behind it, and all tensors that it points to."""
    seed, temperature = call.seed, call.temperature
    seed_at = temperature_at = None
    temperature_dtype = 0
    if isinstance(seed, Tensor):
        if seed.device == input.device:
            seed_at, seed = seed, 0
        else:
            seed = seed_to_int(seed)
    if isinstance(temperature, Tensor):
        if temperature.device == input.device:
            temperature_dtype = DTYPE_CODES[temperature.dtype]
            temperature_at, temperature = temperature, 0.0
        else:
            temperature = float(temperature)
    packed = layout.pack(
        input.data_ptr(),
        codebook.data_ptr(),
        0 if seed_at is None else seed_at.data_ptr(),
        0 if temperature_at is None else temperature_at.data_ptr(),
        seed,
        call.row_offset,
        temperature,
        shape,
        temperature_dtype,
        call.hard,
        vectors,
        call.is_logits,
        *[0 if tensor is None else tensor.data_ptr() for tensor in behind],
    )
    return packed, (input, codebook, seed_at, temperature_at, *behind)


def pack_noise(seed: int | Tensor, row_offset: int, out: Tensor) -> tuple[bytes, tuple[Tensor | None, ...]]:
    """`NoiseArguments` for out (rows, codes), and the tensors that they point to."""
    seed_at = seed if isinstance(seed, Tensor) and seed.device == out.device else None
    address, value = (0, seed_to_int(seed)) if seed_at is None else (seed_at.data_ptr(), 0)
    return _NOISE.pack(address, value, row_offset, *out.shape, 0, out.data_ptr()), (seed_at, out)


def pack_reduce(*jobs: tuple[Tensor, Tensor]) -> bytes:
    """`ReduceArguments`, of one or two jobs: parts (count, length) float64 to out (length,)."""
    packed = [
        _REDUCE_JOB.pack(parts.data_ptr(), *parts.shape, out.data_ptr(), DTYPE_CODES[out.dtype], 0)
        for parts, out in jobs
    ]
    return b"".join(packed).ljust(2 * _REDUCE_JOB.size, b"\0")


def pack_slopes(
    slopes: Tensor, grad_quantized: Tensor | None, grad_kl: Tensor | None, grad_input: Tensor
) -> bytes:
    """`SlopesArguments`."""
    return _SLOPES.pack(
        slopes.data_ptr(),
        0 if grad_quantized is None else grad_quantized.data_ptr(),
        0 if grad_kl is None else grad_kl.data_ptr(),
        grad_input.data_ptr(),
        grad_input.numel(),
        DTYPE_CODES[grad_input.dtype],
        0,
    )
