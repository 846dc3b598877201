"""Autograd over the backends' forward/backward pairs, by two roads.

Eager tensors take a thin `torch.autograd.Function` that calls the backend directly. Everything that only
looks like a tensor (torch.compile, FakeTensor, functorch, tracing) takes the operators registered under
`torch.ops.fqvae_kernels`, into which seed and temperature go as 0-d tensors, so that a new value is neither a
recompilation nor forgotten. A backend that is differentiable by itself is simply called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import _C, Tensor

from fqvae_kernels import _operators
from fqvae_kernels._types import GumbelCall, GumbelQuantized, NearestQuantized
from fqvae_kernels.backends import Backend, KernelBackend, is_kernel

# Of a tensor that has outlived a transform of torch.func, the one within; any other as it is.
_living: Callable[[Tensor], Tensor] = _C._functorch.unwrap_if_dead
_PLAIN_TYPES = frozenset((Tensor, torch.nn.Parameter, int, float, type(None)))


def is_traced(*arguments: object) -> bool:
    """Whether an argument may be a tensor without memory to point at, or a mode watches the operators."""
    for value in arguments:
        if type(value) not in _PLAIN_TYPES and isinstance(value, Tensor):
            return True
    return (
        torch.compiler.is_compiling()
        or _C._are_functorch_transforms_active()
        or _C._len_torch_dispatch_stack() > 0
        or _C._get_tracing_state() is not None
    )


def gumbel(
    backend: Backend, input: Tensor, codebook: Tensor, call: GumbelCall, traced: bool
) -> GumbelQuantized:
    """One Gumbel pass, differentiable in input, codebook and a temperature tensor. Arguments are checked."""
    if not is_kernel(backend):
        return GumbelQuantized(*backend.gumbel_forward(input, codebook, call, None))
    if traced:
        return _operators.gumbel(backend, input, codebook, call)
    temperature = _living(call.temperature) if isinstance(call.temperature, Tensor) else None
    if temperature is not None and temperature.device.type == "cpu":
        call = call._replace(temperature=temperature.item())
    others = codebook.requires_grad or (temperature is not None and temperature.requires_grad)
    if torch.is_grad_enabled() and (input.requires_grad or others):
        if not others and not call.want_weights:
            call = call._replace(only_input=True)
        outputs = _apply_gumbel(_living(input), _living(codebook), temperature, backend, call)
    else:
        outputs = backend.gumbel_forward(*_operators.dense(input, codebook), call, None)
    return GumbelQuantized(*outputs)


def nearest(backend: Backend, z: Tensor, codebook: Tensor, traced: bool) -> NearestQuantized:
    """Nearest codes, the gradient of quantized going straight to z and none to the codebook."""
    if not is_kernel(backend):
        return NearestQuantized(*backend.nearest_forward(z, codebook))
    if traced:
        return _operators.nearest(backend, z, codebook)
    if torch.is_grad_enabled() and z.requires_grad:
        outputs = _Nearest.apply(z, codebook, backend)  # type: ignore[no-untyped-call]
    else:
        outputs = backend.nearest_forward(*_operators.dense(z, codebook))
    return NearestQuantized(*outputs)


def noise(
    backend: Backend,
    seed: int | Tensor,
    rows: int,
    codes: int,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
    traced: bool,
) -> Tensor:
    """Gumbel noise (rows, codes), without gradients."""
    if traced and is_kernel(backend):
        return _operators.gumbel_noise(backend, seed, rows, codes, row_offset, device, dtype)
    return backend.gumbel_noise(seed, rows, codes, row_offset, device, dtype)


class _Gumbel(torch.autograd.Function):
    """The Gumbel pass on plain tensors. Keeps input, codebook, indices and stats: nothing of size N x K."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        codebook: Tensor,
        temperature: Tensor | None,
        backend: KernelBackend,
        call: GumbelCall,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        codebook_dtype = codebook.dtype
        temperature_like = None if temperature is None else (temperature.device, temperature.dtype)
        input, codebook = _operators.dense(input, codebook)
        rows = input.numel() // codebook.shape[-1] if call.is_logits else input.numel()
        stats = codebook.new_empty((backend.stats_rows, rows))
        quantized, indices, kl, weights = backend.gumbel_forward(input, codebook, call, stats)
        # Tensors that the kernels read on the device are saved like the others: PyTorch then notices if one
        # is changed in place before the backward pass, which would draw other noise.
        device_seed = call.seed if isinstance(call.seed, Tensor) else None
        device_temperature = call.temperature if isinstance(call.temperature, Tensor) else None
        ctx.save_for_backward(input, codebook, indices, stats, device_seed, device_temperature)
        if device_seed is not None:
            call = call._replace(seed=0)
        if device_temperature is not None:
            call = call._replace(temperature=1.0)
        ctx.kept = backend, call, codebook_dtype, temperature_like
        return quantized, indices, kl, weights

    @staticmethod
    def backward(
        ctx: Any,
        grad_quantized: Tensor | None,
        grad_indices: None,
        grad_kl: Tensor | None,
        grad_weights: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        if grad_quantized is None and grad_kl is None and grad_weights is None:
            return (None,) * 5
        if not torch.is_grad_enabled():
            return *_gradients(ctx, grad_quantized, grad_kl, grad_weights), None, None
        # With create_graph. PyTorch's once_differentiable marks the gradients only where the incoming ones
        # require grad; a gradient penalty would silently be a constant.
        with torch.no_grad():
            gradients = _gradients(ctx, grad_quantized, grad_kl, grad_weights)
        outputs: tuple[Tensor | None, ...] = _Undifferentiable.apply(  # type: ignore[no-untyped-call]
            *(None if gradient is None else gradient.requires_grad_() for gradient in gradients)
        )
        return *outputs, None, None


def _gradients(
    ctx: Any, grad_quantized: Tensor | None, grad_kl: Tensor | None, grad_weights: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, codebook and temperature, from what `_Gumbel.forward` has kept."""
    input, codebook, indices, stats, device_seed, device_temperature = ctx.saved_tensors
    backend, call, codebook_dtype, temperature_like = ctx.kept
    if device_seed is not None:
        call = call._replace(seed=device_seed)
    if device_temperature is not None:
        call = call._replace(temperature=device_temperature)
    grad_input, grad_codebook, grad_temperature = backend.gumbel_backward(
        input,
        codebook,
        call,
        indices,
        stats,
        _operators.dense_gradient(grad_quantized),
        _operators.dense_gradient(grad_kl),
        _operators.dense_gradient(grad_weights),
        ctx.needs_input_grad[:3],
    )
    if grad_codebook is not None and grad_codebook.dtype != codebook_dtype:
        grad_codebook = grad_codebook.to(codebook_dtype)
    if grad_temperature is not None:
        grad_temperature = grad_temperature.to(*temperature_like)
    return grad_input, grad_codebook, grad_temperature


# What Function.apply calls after looking for transforms of torch.func, which are excluded here, and for
# tensors that have outlived one. To look takes it 3 us; `gumbel` does the second in less than one.
_apply_gumbel: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor | None]] = super(
    torch.autograd.Function, _Gumbel
).apply


class _Undifferentiable(torch.autograd.Function):
    """Tensors as they are, with a gradient that says what is wrong."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if tensor is None else tensor.clone() for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> None:
        raise RuntimeError(_operators.NO_SECOND_DERIVATIVE)


class _Nearest(torch.autograd.Function):
    """The nearest code on plain tensors."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, codebook: Tensor, backend: KernelBackend) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z)
        return backend.nearest_forward(*_operators.dense(z, codebook))

    @staticmethod
    def backward(
        ctx: Any, grad_quantized: Tensor | None, grad_indices: None
    ) -> tuple[Tensor | None, None, None]:
        if grad_quantized is None:
            return None, None, None
        (z,) = ctx.saved_tensors
        return _operators.straight_through(grad_quantized, z), None, None
