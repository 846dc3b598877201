"""The kernels as operators of `torch.ops.fqvae_kernels`: schema, implementation and fake of each.

torch.compile and everything else that traces goes through these; `_traced` gives them their gradients. An
operator returns an empty tensor of shape (0,) for an output that was not asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels import backends, reference
from fqvae_kernels._arguments import check_temperature
from fqvae_kernels._call import Call, Incoming, Kept, Needs, Wants
from fqvae_kernels._seeds import draw_seed_tensor, place_of_numbers, seed_to_tensor
from fqvae_kernels._tensors import compute_dtype, dense, dense_incoming, dense_pair

library = torch.library.Library("fqvae_kernels", "FRAGMENT")

# How a `Call` travels through an operator: the fields' names and their types in the schema, wants and needs
# one by one.
_CALL_FIELDS = (
    ("seed", "Tensor"),
    ("temperature", "Tensor"),
    ("row_offset", "SymInt"),
    ("estimator", "str"),
    ("is_logits", "bool"),
    ("hard", "bool"),
    *((f"wants_{name}", "bool") for name in Wants._fields),
    *((f"needs_{name}", "bool") for name in Needs._fields),
)
CALL_LENGTH = len(_CALL_FIELDS)
_CALL_SCHEMA = ", ".join(f"{type} {name}" for name, type in _CALL_FIELDS)
_SINGLE = CALL_LENGTH - len(Wants._fields) - len(Needs._fields)  # fields that stand for themselves


def temperature_to_tensor(temperature: float | Tensor, device: torch.device) -> Tensor:
    """The temperature as a 0-d tensor where a traced program keeps it; a tensor stays where it is."""
    if isinstance(temperature, Tensor):
        return temperature
    # A product, not torch.full: torch.compile then keeps a float that changes as an input of the program.
    return torch.ones((), dtype=torch.float64, device=place_of_numbers(device)) * temperature


def pack_call(call: Call, device: torch.device) -> tuple[Any, ...]:
    """The call as an operator takes it: seed and temperature are tensors where a traced program has them."""
    seed = seed_to_tensor(call.seed, place_of_numbers(device))
    call = call.changed(seed=seed, temperature=temperature_to_tensor(call.temperature, device))
    return *(getattr(call, name) for name, _ in _CALL_FIELDS[:_SINGLE]), *call.wants, *call.needs


def unpack_call(fields: tuple[Any, ...]) -> Call:
    """The call that `pack_call` has packed, but for numbers that are tensors now."""
    named = {name: value for (name, _), value in zip(_CALL_FIELDS, fields[:_SINGLE], strict=False)}
    flags = fields[_SINGLE:]
    return Call(**named, wants=Wants(*flags[: len(Wants._fields)]), needs=Needs(*flags[len(Wants._fields) :]))


def draw_seed(device: torch.device) -> Tensor:
    """Draw a seed for tensors on the device, at every call of the compiled program.

    torch.compile merges equal calls before the backward pass, whatever their tags say, but it leaves every
    torch.empty apart, and so the draws that are given one each.
    """
    seed: Tensor = torch.ops.fqvae_kernels.draw_seed(torch.empty(0, device=place_of_numbers(device)))
    return seed


def gumbel_noise(
    backend: str,
    seed: int | Tensor,
    rows: int,
    codes: int,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """The noise through its operator."""
    noise: Tensor = torch.ops.fqvae_kernels.gumbel_noise(
        seed_to_tensor(seed, place_of_numbers(device)), rows, codes, row_offset, device, dtype, backend
    )
    return noise


def draw(call: Call, input: Tensor, codebook: Tensor) -> Tensor:
    """`reference.draw` as one operator: Inductor would spend minutes on ten rounds of Philox."""
    shape = input.shape[:-1] if call.is_logits else input.shape
    codes, device = codebook.shape[-1], input.device
    if call.estimator == "gumbel":
        rows = math.prod(shape)
        noise = gumbel_noise("reference", call.seed, rows, codes, call.row_offset, device, codebook.dtype)
        return noise.reshape(*shape, codes)
    uniform: Tensor = torch.ops.fqvae_kernels.row_uniform(
        seed_to_tensor(call.seed, place_of_numbers(device)),
        math.prod(shape),
        call.row_offset,
        device,
        codebook.dtype,
    )
    return uniform.reshape(shape)


def _define(
    schema: str, implementation: Callable[..., Any], fake: Callable[..., Any], *tags: torch.Tag
) -> None:
    """Define an operator for every device: the backend is one of its arguments."""
    name = schema[: schema.index("(")]
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag, *tags))
    library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fqvae_kernels::{name}", fake, lib=library)


def _split(arguments: tuple[Any, ...]) -> tuple[Call, str, tuple[Any, ...]]:
    """The call, the backend, and what follows them among an operator's arguments."""
    return unpack_call(arguments[:CALL_LENGTH]), arguments[CALL_LENGTH], arguments[CALL_LENGTH + 1 :]


def _rows(input: Tensor, codebook: Tensor, is_logits: bool) -> int:
    return input.numel() // codebook.shape[-1] if is_logits else input.numel()


def _quantize(input: Tensor, codebook: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    call, backend, _ = _split(arguments)
    kernel = backends.kernel(backend)
    # Now it has a value, unless it is on a GPU.
    check_temperature(call.temperature, input.device, compute_dtype(input))
    stats = None
    if any(call.needs):
        # Zeros, because an operator's output is the same for every call, also where the kernel leaves it
        # alone.
        shape = kernel.stats_rows(call), _rows(input, codebook, call.is_logits)
        stats = input.new_zeros(shape, dtype=compute_dtype(input))
    outputs = (*kernel.forward(*dense_pair(input, codebook), call, stats), stats)
    dtypes = (input.dtype, torch.int64, compute_dtype(input), input.dtype, compute_dtype(input))
    return tuple(
        input.new_empty(0, dtype=dtype) if output is None else output
        for output, dtype in zip(outputs, dtypes, strict=True)
    )


def _quantize_fake(input: Tensor, codebook: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    call, backend, _ = _split(arguments)
    shape = input.shape[:-1] if call.is_logits else input.shape
    wants, dtype = call.wants, compute_dtype(input)
    stats: tuple[int, ...] = (0,)
    if any(call.needs):
        stats = (backends.kernel(backend).stats_rows(call), _rows(input, codebook, call.is_logits))
    return (
        input.new_empty(shape if wants.quantized else (0,)),
        input.new_empty(shape if wants.indices else (0,), dtype=torch.int64),
        input.new_empty(shape if wants.kl else (0,), dtype=dtype),
        input.new_empty((*shape, codebook.shape[-1]) if wants.weights else (0,)),
        input.new_empty(stats, dtype=dtype),
    )


def _quantize_backward(input: Tensor, codebook: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call, backend, (indices, stats, weights, *rest) = _split(arguments)
    incoming, needs = Incoming(*rest[:3]), Needs(*rest[3:])
    kernel = backends.kernel(backend)
    rows = _rows(input, codebook, call.is_logits)
    if not any(call.needs) or stats.shape != (kernel.stats_rows(call), rows):
        raise ValueError("stats must be those of a forward call that needs gradients")
    kept = Kept(dense(indices), dense(stats), None if weights is None else dense(weights))
    grad_input, grad_codebook, grad_temperature = kernel.backward(
        *dense_pair(input, codebook), call, kept, dense_incoming(incoming), needs
    )
    temperature = call.temperature
    assert isinstance(temperature, Tensor)
    return (
        input.new_empty(0) if grad_input is None else grad_input,
        codebook.new_empty(0) if grad_codebook is None else grad_codebook.to(codebook.dtype),
        temperature.new_empty(0)
        if grad_temperature is None
        else grad_temperature.to(temperature.device, temperature.dtype),
    )


def _quantize_backward_fake(
    input: Tensor, codebook: Tensor, seed: Tensor, temperature: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    needs = Needs(*rest[-len(Needs._fields) :])
    return (
        input.new_empty(input.shape if needs.input else (0,)),
        codebook.new_empty(codebook.shape if needs.codebook else (0,)),
        temperature.new_empty(() if needs.temperature else (0,)),
    )


_NEAREST = Call(estimator="nearest", wants=Wants(kl=False))


def _nearest(z: Tensor, codebook: Tensor, backend: str) -> tuple[Tensor, ...]:
    quantized, indices, _, _ = backends.kernel(backend).forward(*dense_pair(z, codebook), _NEAREST, None)
    assert quantized is not None and indices is not None
    return quantized, indices


def _nearest_fake(z: Tensor, codebook: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), z.new_empty(z.shape, dtype=torch.int64)


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


def _row_uniform(
    seed: Tensor, rows: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    return reference.row_uniform(seed, rows, row_offset=row_offset, device=device, dtype=dtype)


def _row_uniform_fake(
    seed: Tensor, rows: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    return torch.empty(rows, device=device, dtype=dtype)


def _draw_seed(place: Tensor) -> Tensor:
    return draw_seed_tensor(place.device)


def _draw_seed_fake(place: Tensor) -> Tensor:
    return place.new_empty((), dtype=torch.int64)


_define(
    f"quantize(Tensor input, Tensor codebook, {_CALL_SCHEMA}, str backend) "
    "-> (Tensor quantized, Tensor indices, Tensor kl, Tensor weights, Tensor stats)",
    _quantize,
    _quantize_fake,
)
_define(
    f"quantize_backward(Tensor input, Tensor codebook, {_CALL_SCHEMA}, str backend, Tensor indices, "
    "Tensor stats, Tensor? weights, Tensor? grad_quantized, Tensor? grad_kl, Tensor? grad_weights, "
    "bool of_input, bool of_codebook, bool of_temperature) "
    "-> (Tensor grad_input, Tensor grad_codebook, Tensor grad_temperature)",
    _quantize_backward,
    _quantize_backward_fake,
)
_define(
    "nearest(Tensor z, Tensor codebook, str backend) -> (Tensor quantized, Tensor indices)",
    _nearest,
    _nearest_fake,
)
_define(
    "gumbel_noise(Tensor seed, SymInt rows, SymInt codes, SymInt row_offset, Device device, "
    "ScalarType dtype, str backend) -> Tensor",
    _noise,
    _noise_fake,
)
_define(
    "row_uniform(Tensor seed, SymInt rows, SymInt row_offset, Device device, ScalarType dtype) -> Tensor",
    _row_uniform,
    _row_uniform_fake,
)
_define("draw_seed(Tensor place) -> Tensor", _draw_seed, _draw_seed_fake, torch.Tag.nondeterministic_seeded)
