"""Derivatives that no kernel computes: the reference's arithmetic serves, with the same draws.

It differentiates a backward pass again, and takes gradients that come batched. Slow, and N x K in memory, but
right, and connected to everything that a gradient depends on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fqvae_kernels import reference
from fqvae_kernels._call import Call, Gradients, Incoming, Needs, Wants
from fqvae_kernels._draws import draw

_Tensors = tuple[Tensor | None, ...]


def gradients(
    input: Tensor, codebook: Tensor, temperature: Tensor | None, call: Call, incoming: Incoming, needs: Needs
) -> Gradients:
    """The gradients of a pass, each in the dtype of what it belongs to.

    temperature: a tensor that stands in place of the call's, or None.
    """
    wants = Wants(incoming.quantized is not None, True, incoming.kl is not None, incoming.weights is not None)

    def outputs(*primals: Tensor | None) -> _Tensors:
        given_input, given_codebook, given_temperature = primals
        assert given_input is not None and given_codebook is not None
        own = call.changed(wants=wants)
        if given_temperature is not None:
            own = own.changed(temperature=given_temperature)
        found = reference.quantize(given_input, given_codebook, own, draw)
        return found[0], found[2], found[3]

    found = _pull_back(outputs, (input, codebook, temperature), tuple(incoming))
    return tuple(  # type: ignore[return-value]
        gradient if needed else None for gradient, needed in zip(found, needs, strict=True)
    )


def second(
    input: Tensor,
    codebook: Tensor,
    temperature: Tensor | None,
    call: Call,
    incoming: Incoming,
    needs: Needs,
    upstream: tuple[Tensor | None, ...],
) -> tuple[Tensor | None, ...]:
    """What `upstream`, the gradients that reach the results of `gradients`, send to input, codebook,
    temperature, and to the three of incoming."""

    def of_tensors(*tensors: Tensor | None) -> _Tensors:
        given_input, given_codebook, given_temperature, *rest = tensors
        assert given_input is not None and given_codebook is not None
        return gradients(given_input, given_codebook, given_temperature, call, Incoming(*rest), needs)

    return _pull_back(of_tensors, (input, codebook, temperature, *incoming), upstream)


def _pull_back(
    function: Callable[..., _Tensors], arguments: _Tensors, cotangents: tuple[Tensor | None, ...]
) -> _Tensors:
    """The vector-Jacobian product of a function of optional tensors; None for an argument that is None."""
    present = [i for i, argument in enumerate(arguments) if argument is not None]
    wanted = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]

    def dense_function(*tensors: Tensor) -> tuple[Tensor, ...]:
        every: list[Tensor | None] = [None] * len(arguments)
        for i, tensor in zip(present, tensors, strict=True):
            every[i] = tensor
        results = function(*every)
        return tuple(results[i] for i in wanted)  # type: ignore[misc]

    _, pull = torch.func.vjp(dense_function, *(arguments[i] for i in present))  # type: ignore[misc]
    pulled = pull(tuple(cotangents[i] for i in wanted))
    products: list[Tensor | None] = [None] * len(arguments)
    for i, product in zip(present, pulled, strict=True):
        products[i] = product
    return tuple(products)
