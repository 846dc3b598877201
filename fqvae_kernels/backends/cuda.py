"""The CUDA kernels of csrc/cuda as a backend: outputs from torch.empty, launches on PyTorch's current stream.

Nothing here waits for the GPU. Seeds and temperatures in device memory are read by the kernels, so that CUDA
graphs capture a call and a replay sees their new values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fqvae_kernels._types import GumbelCall
from fqvae_kernels.backends._cuda import geometry
from fqvae_kernels.backends._cuda.arguments import (
    Buffer,
    Pass,
    can_load_vectors,
    codebooks_of,
    noise_arguments,
    reduce_arguments,
)
from fqvae_kernels.backends._cuda.geometry import Geometry
from fqvae_kernels.backends._cuda.launcher import Extension, Launcher

name = "cuda"
differentiable = False
stats_rows = 5  # kRowSums in csrc/row/forward.h

launcher: Launcher = Extension()


def unavailable_reason(device: torch.device | None) -> str | None:
    """Why the kernels cannot serve this device, or None."""
    return launcher.unavailable_reason(device)


def gumbel_forward(
    input: Tensor, codebook: Tensor, call: GumbelCall, stats: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """See `fqvae_kernels.backends.Backend`."""
    codes = codebook.shape[-1]
    shape = input.shape[:-1] if call.is_logits else input.shape
    quantized = input.new_empty(shape)
    indices = input.new_empty(shape, dtype=torch.int64)
    kl = codebook.new_empty(shape)
    rows = kl.numel()
    weights = input.new_empty((*shape, codes)) if call.want_weights else None
    this = _pass(geometry.forward, input, codebook, call, rows, weights)
    outputs = [Buffer(tensor, True) for tensor in (quantized, indices, kl, stats, weights)]
    kernel = f"forward_{'logits' if call.is_logits else 'z'}_{_suffix(codebook)}"
    for begin, end in geometry.launches(rows, call.row_offset):
        arguments = this.call_arguments(begin, end).followed_by(*outputs)
        launcher.launch(kernel, _grid(this), this.geometry.shared, arguments, input.device)
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
    rows = indices.numel()
    this = _pass(geometry.backward, input, codebook, call, rows, grad_weights)
    ranges = list(geometry.launches(rows, call.row_offset))
    blocks = this.geometry.blocks
    shares = (len(ranges) * blocks, codebook.numel())
    grad_input = torch.empty_like(input) if needs[0] else None
    codebook_shares = codebook.new_empty(shares, dtype=torch.float64) if needs[1] else None
    temperature_shares = (
        codebook.new_empty((shares[0] * codebooks_of(codebook), 1), dtype=torch.float64) if needs[2] else None
    )
    kernel = f"backward_{'logits' if call.is_logits else 'z'}"
    if call.is_logits or needs[2] or grad_weights is not None or codebook.dtype == torch.float64:
        kernel += "_general"
    per_launch = (blocks, blocks * codebooks_of(codebook))
    for number, (begin, end) in enumerate(ranges):
        own = [
            None if shares is None else shares[number * count : (number + 1) * count]
            for shares, count in zip((codebook_shares, temperature_shares), per_launch, strict=True)
        ]
        arguments = this.call_arguments(begin, end).followed_by(
            *map(Buffer, (indices, stats, grad_quantized, grad_kl, grad_weights)),
            *(Buffer(tensor, True) for tensor in (grad_input, *own)),
        )
        launcher.launch(
            f"{kernel}_{_suffix(codebook)}", _grid(this), this.geometry.shared, arguments, input.device
        )
    grad_codebook = None if codebook_shares is None else _reduce(codebook_shares, torch.empty_like(codebook))
    grad_temperature = None
    if temperature_shares is not None:
        grad_temperature = _reduce(temperature_shares, temperature_shares.new_empty(()))
    return grad_input, grad_codebook, grad_temperature


def nearest_forward(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """See `fqvae_kernels.backends.Backend`."""
    quantized, indices = torch.empty_like(z), torch.empty_like(z, dtype=torch.int64)
    call = GumbelCall(False, True, False, 0, 0, 1.0)
    this = _pass(geometry.forward, z, codebook, call, z.numel(), None)
    for begin, end in geometry.launches(z.numel(), 0):
        outputs = (Buffer(quantized, True), Buffer(indices, True))
        arguments = this.call_arguments(begin, end).followed_by(*outputs)
        launcher.launch(
            f"nearest_{_suffix(codebook)}", _grid(this), this.geometry.shared, arguments, z.device
        )
    return quantized, indices


def gumbel_noise(
    seed: int | Tensor, rows: int, codes: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """See `fqvae_kernels.backends.Backend`."""
    noise = torch.empty((rows, codes), dtype=dtype, device=device)
    if rows > 0:
        threads = rows * -(-codes // 4)
        most = geometry.BLOCKS_WANTED * launcher.multiprocessors(noise.device)
        blocks = min(-(-threads // geometry.THREADS), most)
        arguments = noise_arguments(seed, rows, codes, row_offset, noise)
        launcher.launch(f"noise_{_suffix(noise)}", (blocks, 1), 0, arguments, noise.device)
    return noise


def _pass(
    choose: Callable[..., Geometry],
    input: Tensor,
    codebook: Tensor,
    call: GumbelCall,
    rows: int,
    wide: Tensor | None,
) -> Pass:
    """A pass and its geometry. wide: a (rows, codes) tensor besides given logits, or None."""
    codes, codebooks = codebook.shape[-1], codebooks_of(codebook)
    if codebooks > geometry.MOST_CODEBOOKS:
        raise ValueError(
            f"codebook may hold at most {geometry.MOST_CODEBOOKS} codebooks on backend 'cuda', "
            f"but had {codebooks}"
        )
    many = (input if call.is_logits else None, wide)
    is_wide = any(tensor is not None for tensor in many)
    multiprocessors = launcher.multiprocessors(input.device)
    chosen = choose(rows, codes, codebooks, multiprocessors, is_wide, codebook.element_size())
    return Pass(
        input, codebook, call, rows, math.log2(codes), chosen, is_wide and can_load_vectors(codes, *many)
    )


def _reduce(parts: Tensor, out: Tensor) -> Tensor:
    """The sum over the first dimension, in a fixed order."""
    if parts.shape[0] == 0:
        return out.zero_()
    launcher.launch("reduce", (-(-parts.shape[1] // 32), 1), 0, reduce_arguments(parts, out), out.device)
    return out


def _grid(this: Pass) -> tuple[int, int]:
    return this.geometry.blocks, codebooks_of(this.codebook)


def _suffix(like: Tensor) -> str:
    return "double" if like.dtype == torch.float64 else "float"
