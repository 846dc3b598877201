"""The road of everything that only looks like a tensor: torch.compile, FakeTensor, torch.func, tracing.

It goes through the operators, into which seed and temperature go as 0-d tensors, so that a new value is
neither a recompilation nor forgotten. Here the operators get their gradients, once for autograd, once for
torch.func.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import _C, Tensor

from fqvae_kernels import _derivatives, _operators
from fqvae_kernels._call import Call, Incoming, Needs, Outputs, gives_codes
from fqvae_kernels._tensors import compute_dtype

_transformable: dict[str, type[torch.autograd.Function]] = {}


def beyond_kernels() -> bool:
    """Whether transforms of torch.func are at work that no kernel knows: all but one gradient."""
    if torch.compiler.is_compiling():
        return False
    stack = _C._functorch.get_interpreter_stack() or ()
    kinds = [interpreter.key() for interpreter in stack]
    allowed = (_C._functorch.TransformType.Grad, _C._functorch.TransformType.Functionalize)
    return any(kind not in allowed for kind in kinds) or kinds.count(allowed[0]) > 1


def quantize(backend: str, input: Tensor, codebook: Tensor, call: Call) -> Outputs:
    """A pass of a sampling estimator."""
    temperature = call.temperature
    if torch.is_grad_enabled():
        needs_temperature = isinstance(temperature, Tensor) and temperature.requires_grad
        needs = Needs(input.requires_grad, codebook.requires_grad, needs_temperature)
        call = call.changed(needs=needs)
        if any(needs):
            call = call.changed(wants=call.wants.with_indices())
    packed = _operators.pack_call(call, input.device)
    quantized, indices, kl, weights, _ = _invoke("quantize", input, codebook, *packed, backend)
    return (
        quantized if call.wants.quantized else None,
        indices if call.wants.indices else None,
        kl if call.wants.kl else None,
        weights if call.wants.weights else None,
    )


def nearest(backend: str, z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each z."""
    quantized, indices = _invoke("nearest", z, codebook, backend)
    return quantized, indices


def straight_through(gradient: Tensor, z: Tensor, codebook: Tensor) -> Tensor:
    """The gradient as it is, but 0 in rows that pass no gradient to anything: z or a code is not finite."""
    return torch.where(z.isfinite() & codebook.to(compute_dtype(z)).isfinite().all(-1), gradient, 0)


def _invoke(name: str, *arguments: Any) -> Any:
    """Call an operator, within a gradient of torch.func as a Function that it can see through."""
    operator = getattr(torch.ops.fqvae_kernels, name)
    if torch.compiler.is_compiling():
        return operator(*arguments)
    stack = _C._functorch.get_interpreter_stack() or ()
    if any(interpreter.key() == _C._functorch.TransformType.Grad for interpreter in stack):
        return _transformable[name].apply(*arguments)
    return operator(*arguments)


def _differentiate(name: str, setup_context: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Give an operator its gradient, for autograd and for torch.func."""
    torch.library.register_autograd(
        f"fqvae_kernels::{name}", backward, setup_context=setup_context, lib=_operators.library
    )
    operator = getattr(torch.ops.fqvae_kernels, name)
    # torch.func refuses a Function without setup_context, which is what register_autograd makes.
    _transformable[name] = type(
        name,
        (torch.autograd.Function,),
        {
            "forward": staticmethod(lambda *arguments: operator(*arguments)),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward),
        },
    )


# An operator's arguments begin with input, codebook, seed and temperature, which is the call's second field.
_AFTER_CALL = 2 + _operators.CALL_LENGTH


def _quantize_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, codebook, seed, temperature, *rest = inputs
    call = _operators.unpack_call(inputs[2:_AFTER_CALL])
    _, indices, _, weights, stats = output
    keeps_weights = call.wants.weights and not gives_codes(call) and weights.dtype == stats.dtype
    ctx.save_for_backward(
        input, codebook, seed, temperature, indices, stats, weights if keeps_weights else None
    )
    ctx.rest, ctx.wants = rest, call.wants
    ctx.mark_non_differentiable(indices, stats)
    ctx.set_materialize_grads(False)


def _quantize_gradient(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_quantized, _, grad_kl, grad_weights, _ = gradients
    incoming = Incoming(
        grad_quantized if ctx.wants.quantized else None,
        grad_kl if ctx.wants.kl else None,
        grad_weights if ctx.wants.weights else None,
    )
    needs = Needs(*(ctx.needs_input_grad[i] for i in (0, 1, 3)))
    input, codebook, seed, temperature, *kept = ctx.saved_tensors
    nothing = (None,) * (len(ctx.rest) + 4)
    if all(gradient is None for gradient in incoming):
        return nothing
    if beyond_kernels():
        call = _operators.unpack_call((seed, temperature, *ctx.rest[:-1]))
        found = _derivatives.gradients(input, codebook, temperature, call, incoming, needs)
    else:
        found = _invoke(
            "quantize_backward", input, codebook, seed, temperature, *ctx.rest, *kept, *incoming, *needs
        )
    of_input, of_codebook, of_temperature = (
        gradient if needed else None for gradient, needed in zip(found, needs, strict=True)
    )
    return of_input, of_codebook, None, of_temperature, *nothing[4:]


def _second_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, codebook, seed, temperature, *rest = inputs
    incoming, needs = rest[-6:-3], rest[-3:]
    ctx.save_for_backward(input, codebook, seed, temperature, *incoming)
    ctx.fields, ctx.needs = rest[: _operators.CALL_LENGTH - 2], Needs(*needs)
    ctx.arguments = len(inputs)
    ctx.set_materialize_grads(False)


def _second_gradient(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    input, codebook, seed, temperature, *incoming = ctx.saved_tensors
    call = _operators.unpack_call((seed, temperature, *ctx.fields))
    of_upstream = tuple(
        gradient if needed else None for gradient, needed in zip(upstream, ctx.needs, strict=True)
    )
    products: list[Tensor | None] = [None] * ctx.arguments
    if any(gradient is not None for gradient in of_upstream):
        found = _derivatives.second(
            input, codebook, temperature, call, Incoming(*incoming), ctx.needs, of_upstream
        )
        products[0], products[1], products[3] = found[:3]
        products[-6:-3] = found[3:]
    return tuple(products)


def _nearest_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _nearest_gradient(
    ctx: Any, grad_quantized: Tensor | None, grad_indices: None
) -> tuple[Tensor | None, None, None]:
    if grad_quantized is None:
        return None, None, None
    return straight_through(grad_quantized, *ctx.saved_tensors), None, None


_differentiate("quantize", _quantize_setup, _quantize_gradient)
_differentiate("quantize_backward", _second_setup, _second_gradient)
_differentiate("nearest", _nearest_setup, _nearest_gradient)
