"""The structs of csrc/cuda/arguments.h, field by field, as bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

import torch
from torch import Tensor

from fqvae_kernels._seeds import MASK64, seed_to_int
from fqvae_kernels._types import GumbelCall
from fqvae_kernels.backends._cuda.geometry import Geometry

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

_CALL = struct.Struct("<4Q2Q2d4q8i")
_NOISE = struct.Struct("<3Qq2iQ")
_REDUCE = struct.Struct("<Q2qQ2i")


class Buffer(NamedTuple):
    """A tensor that a kernel is given the address of, or None; written: may the kernel write to it?"""

    tensor: Tensor | None
    written: bool = False

    @property
    def address(self) -> int:
        return 0 if self.tensor is None else self.tensor.data_ptr()


class Arguments(NamedTuple):
    """A kernel's argument, passed by value, and the tensors that it points to."""

    packed: bytes
    buffers: tuple[Buffer, ...]

    def followed_by(self, *buffers: Buffer) -> Arguments:
        """With further addresses behind it."""
        packed = self.packed + struct.pack(f"<{len(buffers)}Q", *(buffer.address for buffer in buffers))
        return Arguments(packed, self.buffers + buffers)


class Pass(NamedTuple):
    """What the launches of one pass have in common."""

    input: Tensor
    codebook: Tensor
    call: GumbelCall
    rows: int
    log2_codes: float
    geometry: Geometry
    vectors: bool

    def call_arguments(self, begin: int, end: int) -> Arguments:
        """The `Call` of the launch for rows begin ... end - 1."""
        seed, temperature = self.call.seed, self.call.temperature
        seed_at = _on_device(seed, self.input)
        temperature_at = _on_device(temperature, self.input)
        codes = self.codebook.shape[-1]
        packed = _CALL.pack(
            self.input.data_ptr(),
            self.codebook.data_ptr(),
            Buffer(seed_at).address,
            Buffer(temperature_at).address,
            seed_to_int(seed) & MASK64 if seed_at is None else 0,
            self.call.row_offset,
            float(temperature) if temperature_at is None else 0.0,
            self.log2_codes,
            self.rows,
            begin,
            end,
            codebooks_of(self.codebook),
            codes,
            self.geometry.staged,
            self.geometry.lanes,
            DTYPE_CODES[self.input.dtype],
            0 if temperature_at is None else DTYPE_CODES[temperature_at.dtype],
            self.call.hard,
            self.vectors,
            self.call.is_logits,
        )
        buffers = (self.input, self.codebook, seed_at, temperature_at)
        return Arguments(packed, tuple(map(Buffer, buffers)))


def noise_arguments(seed: int | Tensor, rows: int, codes: int, row_offset: int, out: Tensor) -> Arguments:
    """`NoiseArguments`."""
    seed_at = _on_device(seed, out)
    value = seed_to_int(seed) & MASK64 if seed_at is None else 0
    packed = _NOISE.pack(Buffer(seed_at).address, value, row_offset, rows, codes, 0, out.data_ptr())
    return Arguments(packed, (Buffer(seed_at), Buffer(out, True)))


def reduce_arguments(parts: Tensor, out: Tensor) -> Arguments:
    """`ReduceArguments`: parts (count, length) float64 to out (length,)."""
    packed = _REDUCE.pack(
        parts.data_ptr(), parts.shape[0], parts.shape[1], out.data_ptr(), DTYPE_CODES[out.dtype], 0
    )
    return Arguments(packed, (Buffer(parts), Buffer(out, True)))


def codebooks_of(codebook: Tensor) -> int:
    """L of (L, K), or 1."""
    return codebook.shape[0] if codebook.dim() == 2 else 1


def can_load_vectors(codes: int, *tensors: Tensor | None) -> bool:
    """May four neighbouring numbers of these (rows, codes) tensors be read and written together?"""
    return codes % 4 == 0 and all(x is None or x.data_ptr() % 16 == 0 for x in tensors)


def _on_device(value: float | Tensor, like: Tensor) -> Tensor | None:
    """The tensor that a kernel reads a 0-d value from, or None where the value is known here."""
    if not isinstance(value, Tensor) or value.device != like.device:
        return None
    return value
