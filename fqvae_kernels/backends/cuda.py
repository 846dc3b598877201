"""The CUDA kernels of csrc/cuda as a backend: outputs from torch.empty, launches on PyTorch's current stream.

Nothing here waits for the GPU. Seeds and temperatures in device memory are read by the kernels, so that CUDA
graphs capture a call and a replay sees their new values. What follows from shapes is worked out once, in a
plan (_cuda/plans.py): a small call takes the GPU microseconds, and the CPU must keep up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae_kernels._types import GumbelCall
from fqvae_kernels.backends._cuda import arguments, geometry, plans
from fqvae_kernels.backends._cuda.launcher import Extension, Launcher
from fqvae_kernels.backends._cuda.plans import Plan

name = "cuda"
differentiable = False
stats_rows = 5  # kRowSums in csrc/row/forward.h

launcher: Launcher = Extension()

_NEAREST = GumbelCall(False, True, False, 0, 0, 1.0)


def unavailable_reason(device: torch.device | None) -> str | None:
    """Why the kernels cannot serve this device, or None."""
    return launcher.unavailable_reason(device)


def gumbel_forward(
    input: Tensor, codebook: Tensor, call: GumbelCall, stats: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """See `fqvae_kernels.backends.Backend`."""
    weights = None
    if call.is_logits:
        kernel = "forward_logits"
        quantized = input.new_empty(input.shape[:-1])
        if call.want_weights:
            weights = torch.empty_like(input)
    else:
        slopes = call.only_input and stats is not None and not call.want_weights
        kernel = "forward_z_slopes" if slopes else "forward_z"
        quantized = torch.empty_like(input)
        if call.want_weights:
            weights = input.new_empty((*input.shape, codebook.shape[-1]))
    indices = torch.empty_like(quantized, dtype=torch.int64)
    kl = torch.empty_like(quantized, dtype=codebook.dtype)
    plan = _plan(kernel, input, codebook, call, quantized.numel(), weights)
    table = None
    if plan.table is not None and plan.shapes:
        table = codebook.new_empty((plan.table.blocks[1], 4 * geometry.TABLE_NODES))
        packed, pointed = arguments.pack_call(
            plans.TABLE, plan.shapes[0], input, codebook, call, False, (table,)
        )
        launcher.launch(plan.table, packed, pointed, input.device)
    _launch(plan, input, codebook, call, weights, (table, quantized, indices, kl, stats, weights))
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
    if call.only_input and not call.is_logits and grad_weights is None:
        return _backward_slopes(input, stats, grad_quantized, grad_kl), None, None
    kernel = "backward_logits_general" if call.is_logits else "backward_z"
    if not call.is_logits and (needs[2] or grad_weights is not None or codebook.dtype == torch.float64):
        kernel = "backward_z_general"
    plan = _plan(kernel, input, codebook, call, indices.numel(), grad_weights)
    grad_input = torch.empty_like(input) if needs[0] else None
    codebook_parts = temperature_parts = grad_codebook = grad_temperature = None
    if needs[1]:
        codebook_parts = codebook.new_empty((plan.parts, codebook.numel()), dtype=torch.float64)
    if needs[2]:
        temperature_parts = codebook.new_empty((plan.parts * plan.launch.blocks[1], 1), dtype=torch.float64)
    given = (indices, stats, grad_quantized, grad_kl, grad_weights, grad_input)
    _launch(plan, input, codebook, call, grad_weights, given, (codebook_parts, temperature_parts))
    jobs = []
    if codebook_parts is not None:
        grad_codebook = torch.empty_like(codebook)
        jobs.append((codebook_parts, grad_codebook))
    if temperature_parts is not None:
        grad_temperature = temperature_parts.new_empty(())
        jobs.append((temperature_parts, grad_temperature))
    if jobs:
        _reduce(*jobs)
    return grad_input, grad_codebook, grad_temperature


def nearest_forward(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """See `fqvae_kernels.backends.Backend`."""
    quantized, indices = torch.empty_like(z), torch.empty_like(z, dtype=torch.int64)
    plan = _plan("nearest", z, codebook, _NEAREST, z.numel(), None)
    _launch(plan, z, codebook, _NEAREST, None, (quantized, indices))
    return quantized, indices


def gumbel_noise(
    seed: int | Tensor, rows: int, codes: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """See `fqvae_kernels.backends.Backend`."""
    noise = torch.empty((rows, codes), dtype=dtype, device=device)
    if rows > 0:
        launch = plans.noise(launcher, noise.device, dtype, rows, codes)
        launcher.launch(launch, *arguments.pack_noise(seed, row_offset, noise), noise.device)
    return noise


def _plan(
    kernel: str, input: Tensor, codebook: Tensor, call: GumbelCall, rows: int, wide: Tensor | None
) -> Plan:
    """See `plans.over_rows`. wide: a (rows, codes) tensor besides given logits, or None."""
    return plans.over_rows(
        kernel,
        launcher,
        input.device,
        input.dtype,
        codebook.shape,
        rows,
        min(rows, 2**32 - call.row_offset % 2**32),
        call.is_logits or wide is not None,
    )


def _launch(
    plan: Plan,
    input: Tensor,
    codebook: Tensor,
    call: GumbelCall,
    wide: Tensor | None,
    given: tuple[Tensor | None, ...],
    parts: tuple[Tensor | None, ...] = (),
) -> None:
    """Go over all rows.

    wide: as for `_plan`. given: the tensors behind the `Call` in the kernel's arguments. parts: those behind
    them, of whose first dimension every launch gets its share.
    """
    vectors = (
        plan.fours
        and not (call.is_logits and input.data_ptr() % 16)
        and (wide is None or wide.data_ptr() % 16 == 0)
    )
    for number, shape in enumerate(plan.shapes):
        own = parts
        if len(plan.shapes) > 1:
            own = tuple(None if part is None else part.chunk(len(plan.shapes))[number] for part in parts)
        packed, pointed = arguments.pack_call(plan.layout, shape, input, codebook, call, vectors, given + own)
        launcher.launch(plan.launch, packed, pointed, input.device)


def _reduce(*jobs: tuple[Tensor, Tensor]) -> None:
    """Of one or two (parts, out): out becomes the sum of parts over its first dimension, in a fixed order."""
    if jobs[0][0].shape[0] == 0:  # no rows
        for _, out in jobs:
            out.zero_()
        return
    launch = plans.reduce(*(parts.shape[1] for parts, _ in jobs))
    tensors = (*(parts for parts, _ in jobs), *(out for _, out in jobs))
    launcher.launch(launch, arguments.pack_reduce(*jobs), tensors, tensors[0].device)


def _backward_slopes(
    input: Tensor, slopes: Tensor, grad_quantized: Tensor | None, grad_kl: Tensor | None
) -> Tensor:
    """The gradient of z, from the slopes that forward_z_slopes has kept in the stats."""
    grad_input = torch.empty_like(input)
    if input.numel() > 0:
        launch = plans.slopes(launcher, input.device, input.dtype, input.numel())
        packed = arguments.pack_slopes(slopes, grad_quantized, grad_kl, grad_input)
        launcher.launch(launch, packed, (slopes, grad_quantized, grad_kl, grad_input), input.device)
    return grad_input
