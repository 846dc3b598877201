"""The kernels as operators of `torch.ops.fqvae_kernels`: schema, implementation, fake and gradient of each.

torch.compile and everything else that traces goes through these. An operator returns an empty tensor of shape
(0,) for an output that was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels import backends
from fqvae_kernels._seeds import draw_seed_tensor, place_of_numbers, seed_to_tensor
from fqvae_kernels._types import GumbelCall, GumbelQuantized, NearestQuantized
from fqvae_kernels.backends import Backend

_library = torch.library.Library("fqvae_kernels", "FRAGMENT")
_transformable: dict[str, type[torch.autograd.Function]] = {}

NO_SECOND_DERIVATIVE = "fqvae_kernels: the gradients of the quantizers cannot be differentiated again"


def gumbel(backend: Backend, input: Tensor, codebook: Tensor, call: GumbelCall) -> GumbelQuantized:
    """The Gumbel pass through its operator."""
    temperature = call.temperature
    place = place_of_numbers(input.device)
    if not isinstance(temperature, Tensor):
        # A product, not torch.full: torch.compile then keeps a float that changes as an input of the program.
        temperature = torch.ones((), dtype=torch.float64, device=place) * temperature
    want_stats = torch.is_grad_enabled() and (
        input.requires_grad or codebook.requires_grad or temperature.requires_grad
    )
    quantized, indices, kl, weights, _ = _invoke(
        "gumbel_forward",
        input,
        codebook,
        seed_to_tensor(call.seed, place),
        temperature,
        call.row_offset,
        call.is_logits,
        call.hard,
        call.want_weights,
        want_stats,
        backend.name,
    )
    return GumbelQuantized(quantized, indices, kl, weights if call.want_weights else None)


def nearest(backend: Backend, z: Tensor, codebook: Tensor) -> NearestQuantized:
    """The nearest code through its operator."""
    return NearestQuantized(*_invoke("nearest_forward", z, codebook, backend.name))


def gumbel_noise(
    backend: Backend,
    seed: int | Tensor,
    rows: int,
    codes: int,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """The noise through its operator."""
    noise: Tensor = torch.ops.fqvae_kernels.gumbel_noise(
        seed_to_tensor(seed, place_of_numbers(device)),
        rows,
        codes,
        row_offset,
        device,
        dtype,
        backend.name,
    )
    return noise


def draw_seed(device: torch.device) -> Tensor:
    """Draw a seed for tensors on the device, at every call of the compiled program.

    torch.compile merges equal calls before the backward pass, whatever their tags say, but it leaves every
    torch.empty apart, and so the draws that are given one each.
    """
    seed: Tensor = torch.ops.fqvae_kernels.draw_seed(torch.empty(0, device=place_of_numbers(device)))
    return seed


def dense(input: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Both as a backend expects them: contiguous, the codebook in the compute dtype."""
    dtype = _compute_dtype(input)
    return _dense(input), _dense(codebook if codebook.dtype == dtype else codebook.to(dtype))


def dense_gradient(gradient: Tensor | None) -> Tensor | None:
    """A gradient as a backend expects it: it may have come expanded or transposed."""
    return None if gradient is None else _dense(gradient)


def straight_through(gradient: Tensor, z: Tensor) -> Tensor:
    """The gradient as it is, but 0 where z is not finite: such a row passes no gradient to anything."""
    return torch.where(z.isfinite(), gradient, 0)


def in_transform() -> bool:
    """Whether a transform of torch.func is at work, outside torch.compile."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _invoke(name: str, *arguments: Any) -> Any:
    """Call an operator, within functorch's transforms as a Function that they can see through."""
    if in_transform():
        return _transformable[name].apply(*arguments)
    return getattr(torch.ops.fqvae_kernels, name)(*arguments)


def _dense(tensor: Tensor) -> Tensor:
    # The imaginary part of a conjugate is negated lazily, by a bit that a pointer does not show. Asking first
    # leaves out two operators, which cost many times more.
    if tensor.is_contiguous() and not tensor.is_neg():
        return tensor
    return tensor.contiguous().resolve_neg()


def _compute_dtype(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _define(
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    *tags: torch.Tag,
) -> None:
    """Define an operator for every device: the backend is one of its arguments."""
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag, *tags))
    _library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fqvae_kernels::{name}", fake, lib=_library)


def _differentiate(name: str, setup_context: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Give an operator its gradient, for autograd and for functorch."""
    torch.library.register_autograd(
        f"fqvae_kernels::{name}", backward, setup_context=setup_context, lib=_library
    )
    operator = getattr(torch.ops.fqvae_kernels, name)
    # functorch refuses a Function without setup_context, which is what register_autograd makes.
    _transformable[name] = type(
        f"Transformable_{name}",
        (torch.autograd.Function,),
        {
            "forward": staticmethod(lambda *arguments: operator(*arguments)),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward),
        },
    )


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _refuse(ctx: Any, *gradients: Tensor | None) -> None:
    raise RuntimeError(NO_SECOND_DERIVATIVE)


def _gumbel_forward(
    input: Tensor,
    codebook: Tensor,
    seed: Tensor,
    temperature: Tensor,
    row_offset: int,
    is_logits: bool,
    hard: bool,
    want_weights: bool,
    want_stats: bool,
    backend: str,
) -> tuple[Tensor, ...]:
    call = GumbelCall(is_logits, hard, want_weights, row_offset, seed, temperature)
    kernel = backends.kernel(backend)
    rows = input.numel() // codebook.shape[-1] if is_logits else input.numel()
    # Zeros, because an operator's output is the same for every call, also where the kernel leaves it alone.
    stats = input.new_zeros((kernel.stats_rows, rows) if want_stats else (0,), dtype=_compute_dtype(input))
    *outputs, weights = kernel.gumbel_forward(*dense(input, codebook), call, stats if want_stats else None)
    return (
        *outputs,
        input.new_empty(0) if weights is None else weights,
        stats,
    )


def _gumbel_forward_fake(
    input: Tensor,
    codebook: Tensor,
    seed: Tensor,
    temperature: Tensor,
    row_offset: int,
    is_logits: bool,
    hard: bool,
    want_weights: bool,
    want_stats: bool,
    backend: str,
) -> tuple[Tensor, ...]:
    shape = input.shape[:-1] if is_logits else input.shape
    kl = input.new_empty(shape, dtype=_compute_dtype(input))
    return (
        input.new_empty(shape),
        input.new_empty(shape, dtype=torch.int64),
        kl,
        input.new_empty((*shape, codebook.shape[-1]) if want_weights else (0,)),
        kl.new_empty((backends.kernel(backend).stats_rows, kl.numel()) if want_stats else (0,)),
    )


def _gumbel_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, codebook, seed, temperature, *settings = inputs
    _, indices, _, _, stats = output
    ctx.save_for_backward(input, codebook, seed, temperature, indices, stats)
    ctx.settings = settings
    ctx.mark_non_differentiable(indices, stats)
    ctx.set_materialize_grads(False)


def _gumbel_gradient(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_quantized, _, grad_kl, grad_weights, _ = gradients
    row_offset, is_logits, hard, want_weights, _, backend = ctx.settings
    needs = tuple(ctx.needs_input_grad[i] for i in (0, 1, 3))
    grad_input, grad_codebook, grad_temperature = _invoke(
        "gumbel_backward",
        *ctx.saved_tensors,
        grad_quantized,
        grad_kl,
        grad_weights if want_weights else None,
        row_offset,
        is_logits,
        hard,
        *needs,
        backend,
    )
    return (
        grad_input if needs[0] else None,
        grad_codebook if needs[1] else None,
        None,
        grad_temperature if needs[2] else None,
        *(None,) * 6,
    )


def _gumbel_backward(
    input: Tensor,
    codebook: Tensor,
    seed: Tensor,
    temperature: Tensor,
    indices: Tensor,
    stats: Tensor,
    grad_quantized: Tensor | None,
    grad_kl: Tensor | None,
    grad_weights: Tensor | None,
    row_offset: int,
    is_logits: bool,
    hard: bool,
    need_input: bool,
    need_codebook: bool,
    need_temperature: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    kernel = backends.kernel(backend)
    if stats.shape != (kernel.stats_rows, indices.numel()):
        raise ValueError("stats must be those of a forward call with want_stats=True")
    needs = (need_input, need_codebook, need_temperature)
    grad_input, grad_codebook, grad_temperature = kernel.gumbel_backward(
        *dense(input, codebook),
        GumbelCall(is_logits, hard, grad_weights is not None, row_offset, seed, temperature),
        _dense(indices),
        _dense(stats),
        dense_gradient(grad_quantized),
        dense_gradient(grad_kl),
        dense_gradient(grad_weights),
        needs,
    )
    return (
        input.new_empty(0) if grad_input is None else grad_input,
        codebook.new_empty(0) if grad_codebook is None else grad_codebook.to(codebook.dtype),
        temperature.new_empty(0)
        if grad_temperature is None
        else grad_temperature.to(temperature.device, temperature.dtype),
    )


def _gumbel_backward_fake(
    input: Tensor, codebook: Tensor, seed: Tensor, temperature: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *_, need_input, need_codebook, need_temperature, _ = rest
    return (
        input.new_empty(input.shape if need_input else (0,)),
        codebook.new_empty(codebook.shape if need_codebook else (0,)),
        temperature.new_empty(() if need_temperature else (0,)),
    )


def _nearest_forward(z: Tensor, codebook: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return backends.kernel(backend).nearest_forward(*dense(z, codebook))


def _nearest_forward_fake(z: Tensor, codebook: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), z.new_empty(z.shape, dtype=torch.int64)


def _nearest_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _nearest_gradient(
    ctx: Any, grad_quantized: Tensor | None, grad_indices: None
) -> tuple[Tensor | None, None, None]:
    if grad_quantized is None:
        return None, None, None
    return straight_through(grad_quantized, *ctx.saved_tensors), None, None


def _noise(
    seed: Tensor,
    rows: int,
    codes: int,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    return backends.get(backend).gumbel_noise(seed, rows, codes, row_offset, device, dtype)


def _noise_fake(
    seed: Tensor,
    rows: int,
    codes: int,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    return torch.empty((rows, codes), device=device, dtype=dtype)


def _draw_seed(place: Tensor) -> Tensor:
    return draw_seed_tensor(place.device)


def _draw_seed_fake(place: Tensor) -> Tensor:
    return place.new_empty((), dtype=torch.int64)


_define(
    "gumbel_forward(Tensor input, Tensor codebook, Tensor seed, Tensor temperature, SymInt row_offset, "
    "bool is_logits, bool hard, bool want_weights, bool want_stats, str backend) "
    "-> (Tensor quantized, Tensor indices, Tensor kl, Tensor weights, Tensor stats)",
    _gumbel_forward,
    _gumbel_forward_fake,
)
_define(
    "gumbel_backward(Tensor input, Tensor codebook, Tensor seed, Tensor temperature, Tensor indices, "
    "Tensor stats, Tensor? grad_quantized, Tensor? grad_kl, Tensor? grad_weights, SymInt row_offset, "
    "bool is_logits, bool hard, bool need_input, bool need_codebook, bool need_temperature, str backend) "
    "-> (Tensor grad_input, Tensor grad_codebook, Tensor grad_temperature)",
    _gumbel_backward,
    _gumbel_backward_fake,
)
_define(
    "nearest_forward(Tensor z, Tensor codebook, str backend) -> (Tensor quantized, Tensor indices)",
    _nearest_forward,
    _nearest_forward_fake,
)
_define(
    "gumbel_noise(Tensor seed, SymInt rows, SymInt codes, SymInt row_offset, Device device, "
    "ScalarType dtype, str backend) -> Tensor",
    _noise,
    _noise_fake,
)
_define("draw_seed(Tensor place) -> Tensor", _draw_seed, _draw_seed_fake, torch.Tag.nondeterministic_seeded)

_differentiate("gumbel_forward", _gumbel_setup, _gumbel_gradient)
_differentiate("gumbel_backward", _keep_nothing, _refuse)
_differentiate("nearest_forward", _nearest_setup, _nearest_gradient)
