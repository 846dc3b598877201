"""The CUDA kernels of csrc/cuda as a backend: outputs from torch.empty, launches on PyTorch's current stream.

Nothing here waits for the GPU. Seeds and temperatures in device memory are read by the kernels, so that CUDA
graphs capture a call and a replay sees their new values. What follows from shapes is worked out once, in a
plan (_cuda/plans.py): a small call takes the GPU microseconds, and the CPU must keep up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae_kernels._call import Call, Gradients, Incoming, Kept, Needs, Outputs
from fqvae_kernels.backends._cuda import arguments, geometry, plans
from fqvae_kernels.backends._cuda.launcher import Extension, Launcher
from fqvae_kernels.backends._cuda.plans import Plan

name = "cuda"
differentiable = False
devices = ("cuda",)

launcher: Launcher = Extension()

_STATS_ROWS = 5  # kStats in csrc/row/stats.h


def unavailable_reason(device: torch.device | None) -> str | None:
    """Why the kernels cannot serve this device, or None."""
    return launcher.unavailable_reason(device)


def stats_rows(call: Call) -> int:
    """See `fqvae_kernels.backends.KernelBackend`. Where a code is drawn, the index tells everything."""
    return 0 if _draws_codes(call) else _STATS_ROWS


def _draws_codes(call: Call) -> bool:
    """Whether the index is drawn without noise under the codes: by the kernels of csrc/cuda/drawn.cu."""
    return call.estimator in ("straight_through", "reinmax")


def _only_input(call: Call) -> bool:
    """Whether z alone wants a gradient, and no gradient of the weights can come, of "gumbel"."""
    return (
        call.estimator == "gumbel"
        and call.needs == (True, False, False)
        and not call.is_logits
        and not call.wants.weights
    )


def forward(input: Tensor, codebook: Tensor, call: Call, stats: Tensor | None) -> Outputs:
    """See `fqvae_kernels.backends.Backend`."""
    shape = input.shape[:-1] if call.is_logits else input.shape
    wants = call.wants
    quantized = input.new_empty(shape) if wants.quantized else None
    indices = input.new_empty(shape, dtype=torch.int64) if wants.indices else None
    if call.estimator == "nearest":
        _nearest(input, codebook, call, quantized, indices)
        return quantized, indices, None, None
    kl = input.new_empty(shape, dtype=codebook.dtype) if wants.kl else None
    weights = input.new_empty((*shape, codebook.shape[-1])) if wants.weights else None
    plan = _plan(_forward_kernel(call, stats), input, codebook, call, shape.numel(), (weights,))
    table = None
    if plan.table is not None and plan.shapes:
        table = codebook.new_empty((plan.table.blocks[1], 4 * geometry.TABLE_NODES))
        packed, pointed = arguments.pack_call(
            plans.TABLE, plan.shapes[0], input, codebook, call, False, (table,)
        )
        launcher.launch(plan.table, packed, pointed, input.device)
    _launch(plan, input, codebook, call, (weights,), (table, quantized, indices, kl, weights, stats))
    return quantized, indices, kl, weights


def _forward_kernel(call: Call, stats: Tensor | None) -> str:
    if call.is_logits:
        return "forward_drawn_logits" if _draws_codes(call) else "forward_logits"
    if _draws_codes(call):
        return "forward_drawn_z"
    return "forward_z_slopes" if _only_input(call) and stats is not None else "forward_z"


def _backward_kernel(call: Call, general: bool) -> str:
    """general: what only the general kernels serve, which is all that there are but for float32 scalars."""
    if _draws_codes(call):
        return "backward_drawn_logits" if call.is_logits else "backward_drawn_z"
    if call.is_logits:
        return "backward_logits_general"
    return "backward_z_general" if general else "backward_z"


def backward(
    input: Tensor, codebook: Tensor, call: Call, kept: Kept, incoming: Incoming, needs: Needs
) -> Gradients:
    """See `fqvae_kernels.backends.KernelBackend`."""
    indices, stats, weights = kept
    grad_quantized, grad_kl, grad_weights = incoming
    if _only_input(call):
        return _backward_slopes(input, stats, grad_quantized, grad_kl), None, None
    kernel = _backward_kernel(call, needs[2] or grad_weights is not None or codebook.dtype == torch.float64)
    if needs[2] or not kernel.endswith("_general") or (weights is not None and weights.dtype != input.dtype):
        weights = None  # the noise is drawn again
    wide = grad_weights, weights
    plan = _plan(kernel, input, codebook, call, indices.numel(), wide)
    grad_input = torch.empty_like(input) if needs[0] else None
    codebook_parts = temperature_parts = grad_codebook = grad_temperature = None
    if needs[1]:
        codebook_parts = codebook.new_empty((plan.parts, codebook.numel()), dtype=torch.float64)
    if needs[2]:
        temperature_parts = codebook.new_empty((plan.parts * plan.launch.blocks[1], 1), dtype=torch.float64)
    given = (indices, stats, weights, grad_quantized, grad_kl, grad_weights, grad_input)
    _launch(plan, input, codebook, call, wide, given, (codebook_parts, temperature_parts))
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


def _nearest(
    z: Tensor, codebook: Tensor, call: Call, quantized: Tensor | None, indices: Tensor | None
) -> None:
    plan = _plan("nearest", z, codebook, call, z.numel(), ())
    _launch(plan, z, codebook, call, (), (quantized, indices))


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
    kernel: str, input: Tensor, codebook: Tensor, call: Call, rows: int, wide: tuple[Tensor | None, ...]
) -> Plan:
    """See `plans.over_rows`. wide: the (rows, codes) tensors besides given logits."""
    return plans.over_rows(
        kernel,
        launcher,
        input.device,
        input.dtype,
        codebook.shape,
        rows,
        min(rows, 2**32 - call.row_offset % 2**32),
        call.is_logits or any(tensor is not None for tensor in wide),
        call.wants.kl,
    )


def _launch(
    plan: Plan,
    input: Tensor,
    codebook: Tensor,
    call: Call,
    wide: tuple[Tensor | None, ...],
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
        and not any(tensor is not None and tensor.data_ptr() % 16 for tensor in wide)
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
