"""Autograd over the backends' forward/backward pairs, by three roads.

Eager tensors take a thin `torch.autograd.Function` that calls the backend directly. Everything that only
looks like a tensor takes the operators (`_traced`). What no kernel can do, the reference does, in plain
PyTorch: forward-mode AD, torch.func.vmap, and derivatives of derivatives (`_derivatives`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import _C, Tensor
from torch.autograd import forward_ad

from fqvae_kernels import _derivatives, _operators, _traced, reference
from fqvae_kernels._call import Call, Incoming, Kept, Needs, Outputs, Tally, Wants, gives_codes
from fqvae_kernels._draws import draw
from fqvae_kernels._tensors import dense_incoming, dense_pair
from fqvae_kernels._types import GumbelQuantized, NearestQuantized
from fqvae_kernels.backends import Backend, KernelBackend, cpu, is_kernel

# Of a tensor that has outlived a transform of torch.func, the one within; any other as it is.
_living: Callable[[Tensor], Tensor] = _C._functorch.unwrap_if_dead
_has_storage: Callable[[Tensor], bool] = _C._has_storage
# A tuple: torch.compile of PyTorch 2.8 cannot look into a frozenset.
_PLAIN_TYPES = (Tensor, torch.nn.Parameter, int, float, type(None))
_NEAREST = Call(estimator="nearest", wants=Wants(kl=False))


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


def quantize(backend: Backend, input: Tensor, codebook: Tensor, call: Call, traced: bool) -> GumbelQuantized:
    """One pass of a sampling estimator, differentiable in input, codebook and a temperature tensor.

    Arguments are checked. What the call does not want is None.
    """
    if not is_kernel(backend) or beyond_kernels(traced, input, codebook, call.temperature):
        if torch.compiler.is_compiling():  # a program that serves every value
            call = call.changed(temperature=_operators.temperature_to_tensor(call.temperature, input.device))
        outputs = reference.quantize(input, codebook, call, draw)
        return GumbelQuantized(*outputs)  # type: ignore[arg-type]
    if traced:
        outputs = _traced.quantize(backend.name, input, codebook, call)
        return GumbelQuantized(*outputs)  # type: ignore[arg-type]
    temperature = _living(call.temperature) if isinstance(call.temperature, Tensor) else None
    if temperature is not None and temperature.device.type == "cpu":
        call = call.changed(temperature=temperature.item())
    needs = (
        input.requires_grad,
        codebook.requires_grad,
        temperature is not None and temperature.requires_grad,
    )
    if True in needs and torch.is_grad_enabled():
        call = Call(*call[:-1], Needs(*needs))  # in a third of the time of _replace
        outputs = _apply_quantize(_living(input), _living(codebook), temperature, backend, call)
    else:
        outputs = backend.forward(*dense_pair(input, codebook), call, None)
    return GumbelQuantized(*outputs)  # type: ignore[arg-type]


def weights(
    backend: Backend, logits: Tensor, codebook: Tensor, call: Call, traced: bool
) -> tuple[Tensor, Tensor | None]:
    """Soft or one-hot weights of logits (..., K), differentiable in them and in a temperature tensor; and
    the indices, if call wants them.

    call: of "gumbel", wants weights and perhaps indices. codebook: its values do not matter as long as they
    are finite.
    """
    temperature = call.temperature
    needs_temperature = isinstance(temperature, Tensor) and temperature.requires_grad
    if (
        not is_kernel(backend)
        or traced
        # Weights that were rounded to 16 bits would leave a part of that in the gradient.
        or logits.dtype in (torch.float16, torch.bfloat16)
        or not (torch.is_grad_enabled() and (logits.requires_grad or needs_temperature))
        or beyond_kernels(traced, logits, temperature)
    ):
        found = quantize(backend, logits, codebook, call, traced)
        assert found.weights is not None
        return found.weights, found.indices if call.wants.indices else None
    tensor = _living(temperature) if isinstance(temperature, Tensor) else None
    if tensor is not None and tensor.device.type == "cpu":
        call = call.changed(temperature=tensor.item())
    given, indices, _ = _Weights.apply(  # type: ignore[no-untyped-call]
        _living(logits), codebook, tensor, backend, call
    )
    return given, indices


def nearest(backend: Backend, z: Tensor, codebook: Tensor, traced: bool) -> NearestQuantized:
    """Nearest codes, the gradient of quantized going straight to z and none to the codebook."""
    outputs: tuple[Tensor | None, ...]
    if not is_kernel(backend) or beyond_kernels(traced, z, codebook):
        outputs = reference.quantize(z, codebook, _NEAREST)
    elif traced:
        return NearestQuantized(*_traced.nearest(backend.name, z, codebook))
    elif torch.is_grad_enabled() and z.requires_grad:
        outputs = _Nearest.apply(z, codebook, backend, None)  # type: ignore[no-untyped-call]
    else:
        outputs = _run_nearest(z, codebook, backend, None)
    return NearestQuantized(*outputs[:2])  # type: ignore[arg-type]


def nearest_counted(
    z: Tensor, codebook: Tensor, tally: Callable[[], Tally | None]
) -> NearestQuantized | None:
    """`nearest` of plain tensors by the native kernels, which count the codes as they go; None, and nothing
    done, where they cannot serve or tally gives None."""
    if beyond_kernels(False, z, codebook):
        return None
    found = tally()
    if found is None:
        return None
    if torch.is_grad_enabled() and z.requires_grad:
        outputs = _Nearest.apply(z, codebook, None, found)  # type: ignore[no-untyped-call]
    else:
        outputs = _run_nearest(z, codebook, None, found)
    return NearestQuantized(*outputs)


def _run_nearest(
    z: Tensor, codebook: Tensor, backend: KernelBackend | None, tally: Tally | None
) -> tuple[Tensor | None, ...]:
    """Quantized and indices: by the backend, or by the native kernels, which count."""
    if tally is not None:
        return cpu.nearest_counted(*dense_pair(z, codebook), _NEAREST, tally)
    assert backend is not None
    return backend.forward(*dense_pair(z, codebook), _NEAREST, None)[:2]


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
    if traced:
        return _operators.gumbel_noise(backend.name, seed, rows, codes, row_offset, device, dtype)
    return backend.gumbel_noise(seed, rows, codes, row_offset, device, dtype)


def beyond_kernels(traced: bool, *arguments: object) -> bool:
    """Whether a derivative may be asked for that no kernel computes."""
    if traced and _traced.beyond_kernels():
        return True
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return False
    return any(
        isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None for value in arguments
    )


class _Quantize(torch.autograd.Function):
    """A pass on plain tensors. Keeps input, codebook, indices and stats, and soft weights that it gives."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        codebook: Tensor,
        temperature: Tensor | None,
        backend: KernelBackend,
        call: Call,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        if not call.wants.indices:
            call = call.changed(wants=call.wants.with_indices())
        dense_input, dense_codebook = dense_pair(input, codebook)
        rows = input.numel() // codebook.shape[-1] if call.is_logits else input.numel()
        stats = dense_codebook.new_empty((backend.stats_rows(call), rows))
        quantized, indices, kl, weights = backend.forward(dense_input, dense_codebook, call, stats)
        kept_weights = None
        if weights is not None and not gives_codes(call) and weights.dtype == stats.dtype:
            kept_weights = weights
        # Tensors that the kernels read on the device are saved like the others: PyTorch then notices if one
        # is changed in place before the backward pass, which would draw other noise.
        ctx.is_dense = dense_input is input and dense_codebook is codebook
        device_seed = call.seed if isinstance(call.seed, Tensor) else None
        ctx.save_for_backward(input, codebook, temperature, indices, stats, kept_weights, device_seed)
        if device_seed is not None:
            call = call.changed(seed=0)
        if isinstance(call.temperature, Tensor):
            call = call.changed(temperature=1.0)
        ctx.pass_of = backend, call
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
        input, codebook, temperature, indices, stats, weights, device_seed = ctx.saved_tensors
        backend, call = ctx.pass_of
        if device_seed is not None:
            call = call.changed(seed=device_seed)
        kept = Kept(indices, stats, weights)
        asked = ctx.needs_input_grad[:3]
        needs = call.needs if asked == call.needs else Needs(*asked)
        incoming = Incoming(grad_quantized, grad_kl, grad_weights)
        if (
            (grad_quantized is not None and not _has_storage(grad_quantized))
            or (grad_kl is not None and not _has_storage(grad_kl))
            or (grad_weights is not None and not _has_storage(grad_weights))
        ):  # they come batched, from is_grads_batched or torch.func.vmap
            found = _derivatives.gradients(input, codebook, temperature, call, incoming, needs)
        elif torch.is_grad_enabled():  # with create_graph
            found = _Gradients.apply(  # type: ignore[no-untyped-call]
                input, codebook, temperature, *incoming, backend, call, kept, needs
            )
        else:
            found = _gradients(
                input, codebook, temperature, backend, call, kept, incoming, needs, ctx.is_dense
            )
        return *found, None, None


# What Function.apply calls after looking for transforms of torch.func, which are excluded here, and for
# tensors that have outlived one. To look takes it 3 us; `quantize` does the second in less than one.
_apply_quantize: Callable[..., Outputs] = super(torch.autograd.Function, _Quantize).apply


def _gradients(
    input: Tensor,
    codebook: Tensor,
    temperature: Tensor | None,
    backend: KernelBackend,
    call: Call,
    kept: Kept,
    incoming: Incoming,
    needs: Needs,
    is_dense: bool = False,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, codebook and temperature by the kernel, each in its own dtype.

    is_dense: input and codebook are as a backend takes them.
    """
    if temperature is not None and temperature.device.type != "cpu":
        call = call.changed(temperature=temperature)
    dense_input, dense_codebook = (input, codebook) if is_dense else dense_pair(input, codebook)
    grad_input, grad_codebook, grad_temperature = backend.backward(
        dense_input, dense_codebook, call, kept, dense_incoming(incoming), needs
    )
    if grad_codebook is not None and grad_codebook.dtype != codebook.dtype:
        grad_codebook = grad_codebook.to(codebook.dtype)
    if grad_temperature is not None and temperature is not None:
        grad_temperature = grad_temperature.to(temperature.device, temperature.dtype)
    return grad_input, grad_codebook, grad_temperature


class _Gradients(torch.autograd.Function):
    """The gradients of a pass as a function that can be differentiated: by the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        codebook: Tensor,
        temperature: Tensor | None,
        grad_quantized: Tensor | None,
        grad_kl: Tensor | None,
        grad_weights: Tensor | None,
        backend: KernelBackend,
        call: Call,
        kept: Kept,
        needs: Needs,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, codebook, temperature, grad_quantized, grad_kl, grad_weights)
        ctx.pass_of = call, needs
        incoming = Incoming(grad_quantized, grad_kl, grad_weights)
        return _gradients(input, codebook, temperature, backend, call, kept, incoming, needs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(gradient is None for gradient in upstream):
            return (None,) * 10
        input, codebook, temperature, *incoming = ctx.saved_tensors
        call, needs = ctx.pass_of
        products = _derivatives.second(
            input,
            codebook,
            temperature,
            call,
            Incoming(*incoming),
            needs,
            upstream,
        )
        return *products, None, None, None, None


class _Nearest(torch.autograd.Function):
    """The nearest code on plain tensors."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, codebook: Tensor, backend: KernelBackend | None, tally: Tally | None
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, codebook)
        return _run_nearest(z, codebook, backend, tally)

    @staticmethod
    def backward(
        ctx: Any, grad_quantized: Tensor | None, grad_indices: None
    ) -> tuple[Tensor | None, None, None, None]:
        if grad_quantized is None:
            return None, None, None, None
        return _traced.straight_through(grad_quantized, *ctx.saved_tensors), None, None, None


class _Weights(torch.autograd.Function):
    """Weights of logits on plain tensors; those of a one-hot, too, which nobody sees but a second derivative.

    The gradients follow from the soft weights w alone, by operators that can be differentiated again: with v
    = dL/dw, ds[k] = w[k] (v[k] - sum of w v), dL/dlogits = ds / temperature, and dL/dtau = -sum of ds log w /
    temperature, since the ds[k] sum to 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        codebook: Tensor,
        temperature: Tensor | None,
        backend: KernelBackend,
        call: Call,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        wants = call.wants._replace(indices=call.hard or call.wants.indices)
        soft_call = call.changed(hard=False, wants=wants)
        _, indices, _, soft = backend.forward(*dense_pair(logits, codebook), soft_call, None)
        assert soft is not None
        given = soft
        if call.hard:
            assert indices is not None
            given = torch.zeros_like(soft).scatter_(-1, indices.unsqueeze(-1), 1)
            given.masked_fill_(_unusable(soft), math.nan)
        ctx.save_for_backward(soft, temperature)
        ctx.temperature = call.temperature
        ctx.hard = call.hard
        # One tensor cannot be two outputs.
        return given, indices, soft if call.hard else soft.new_empty(0)

    @staticmethod
    def backward(
        ctx: Any, grad_given: Tensor | None, grad_indices: None, grad_soft: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grads = [each for each in (grad_given, grad_soft if ctx.hard else None) if each is not None]
        if not grads:
            return (None,) * 5
        soft, tensor = ctx.saved_tensors
        temperature = ctx.temperature if tensor is None else tensor
        found = torch._softmax_backward_data(sum(grads[1:], grads[0]), soft, -1, soft.dtype)
        unusable = _unusable(soft)
        if torch.is_grad_enabled():
            found = found.masked_fill(unusable, 0)
        elif found.device.type != "cpu" or bool(unusable.any()):  # a GPU is not waited for
            found = found.masked_fill_(unusable, 0)
        grad_temperature = None
        if ctx.needs_input_grad[2]:
            log_weights = soft.clamp(min=torch.finfo(soft.dtype).tiny).log()
            total = torch.where(unusable, 0, found * log_weights).sum(dtype=torch.float64)
            grad_temperature = (-total / tensor.double()).to(tensor.device, tensor.dtype)
        if not ctx.needs_input_grad[0]:
            return None, None, grad_temperature, None, None
        grad_logits = found / temperature if torch.is_grad_enabled() else found.div_(temperature)
        return grad_logits, None, grad_temperature, None, None


def _unusable(weights: Tensor) -> Tensor:
    """Which rows are NaN, (..., 1)."""
    return weights.narrow(-1, 0, 1).isnan()
