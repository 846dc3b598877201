"""The structs of csrc/cuda/arguments.h as bytes.

Those that begin with a `Call` (csrc/call.h) and a `Launch` are packed by `call_struct`: what every call
brings anew stands alone, and what follows from shapes is two fields, packed once for a plan.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import torch
from torch import Tensor

from fqvae_kernels._call import ESTIMATORS, Call
from fqvae_kernels._seeds import seed_to_int
from fqvae_kernels._tensors import DTYPE_CODES, address
from fqvae_kernels.backends._cuda.geometry import Geometry

# As `Estimator` in csrc/call.h numbers them.
_ESTIMATOR_CODES = {name: number for number, name in enumerate(ESTIMATORS)}
_CALL_SHAPE = struct.Struct("<2d2q2i")  # of `Call`: log2_codes ... dtype
_LAUNCH_SHAPE = struct.Struct("<2q3i")  # of `Launch`: row_begin ... as_given
_NOISE = struct.Struct("<3Qq2iQ")
_REDUCE_JOB = struct.Struct("<Q2qQ2i")
_SLOPES = struct.Struct("<4Qq2i")


def call_struct(addresses: int) -> struct.Struct:
    """A struct of a `Call`, a `Launch` and so many addresses; its fields are those of `pack_call`."""
    return struct.Struct(f"<6Qd{_CALL_SHAPE.size}s4i{_LAUNCH_SHAPE.size}si{addresses}Q")


class CallShape(NamedTuple):
    """What follows from shapes, packed: of the `Call`, and of the `Launch`."""

    call: bytes
    launch: bytes


def call_shape(
    rows: int,
    begin: int,
    end: int,
    codebooks: int,
    codes: int,
    geometry: Geometry,
    dtype: torch.dtype,
) -> CallShape:
    """What follows from shapes, for the launch that takes rows begin ... end - 1."""
    return CallShape(
        _CALL_SHAPE.pack(math.log2(codes), math.log(codes), rows, codebooks, codes, DTYPE_CODES[dtype]),
        _LAUNCH_SHAPE.pack(begin, end, geometry.staged, geometry.lanes, geometry.as_given),
    )


def pack_call(
    layout: struct.Struct,
    shape: CallShape,
    input: Tensor,
    codebook: Tensor,
    call: Call,
    vectors: bool,
    behind: tuple[Tensor | None, ...],
) -> tuple[bytes, tuple[Tensor | None, ...]]:
    """A struct of a `Call`, its `Launch` and addresses of the tensors behind them, and all its tensors."""
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
        address(seed_at),
        address(temperature_at),
        seed,
        call.row_offset,
        temperature,
        shape.call,
        temperature_dtype,
        _ESTIMATOR_CODES[call.estimator],
        call.hard,
        call.is_logits,
        shape.launch,
        vectors,
        *[address(tensor) for tensor in behind],
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
        address(grad_quantized),
        address(grad_kl),
        grad_input.data_ptr(),
        grad_input.numel(),
        DTYPE_CODES[grad_input.dtype],
        0,
    )
