"""Codes that are vectors: the kernels give weights and indices, and an embedding makes vectors of them."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels import autograd
from fqvae_kernels._call import Call, gives_codes
from fqvae_kernels._types import GumbelQuantized
from fqvae_kernels.backends import Backend


def stand_in(embedding: Tensor, dtype: torch.dtype) -> Tensor:
    """A codebook (K,) or (L, K) for the kernels: 0, but NaN where a vector is not finite.

    A kernel makes every row of a codebook with such a code NaN, and gives it no gradient.
    """
    return (embedding.detach() * 0).sum(-1).to(dtype)


def quantize(
    backend: Backend, logits: Tensor, codebook: Tensor, embedding: Tensor, call: Call, traced: bool
) -> GumbelQuantized:
    """One pass over logits (..., K), then the vectors; differentiable in all of them and a temperature.

    logits are in the compute dtype, codebook is their `stand_in`, and call wants weights and indices.
    """
    if call.estimator == "gumbel" and not call.wants.kl:
        weights, indices = autograd.weights(backend, logits, codebook, call, traced)
        kl = None
    else:
        drawn = autograd.quantize(backend, logits, codebook, call, traced)
        assert drawn.weights is not None
        weights, indices, kl = drawn.weights, drawn.indices, drawn.kl
    assert indices is not None
    embedding = embedding.to(logits.dtype)
    taken = indices if gives_codes(call) else None
    if traced or autograd.beyond_kernels(traced, weights, embedding):
        quantized = _composed(weights, embedding, taken)
    else:
        quantized = _Combine.apply(weights, embedding, taken)  # type: ignore[no-untyped-call]
    return GumbelQuantized(quantized, indices, kl, weights)


class _Combine(torch.autograd.Function):
    """weights @ embedding on plain tensors; with indices, of one-hot weights, by taking rows."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, embedding: Tensor, indices: Tensor | None) -> Tensor:
        ctx.save_for_backward(weights, embedding, indices)
        if indices is None:
            return _product(weights, embedding)
        return rows_at(embedding, indices).masked_fill(_unusable(weights), math.nan)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weights, embedding, indices = ctx.saved_tensors
        differentiable = torch.is_grad_enabled()
        unusable = _unusable(weights)
        # A GPU is not waited for.
        if differentiable or weights.device.type != "cpu" or bool(unusable.any()):
            gradient = gradient.masked_fill(unusable, 0)
            if indices is None or differentiable:
                weights = weights.masked_fill(unusable, 0)
        of_weights = of_embedding = None
        if ctx.needs_input_grad[0]:
            of_weights = _product(gradient, embedding.mT)
        if ctx.needs_input_grad[1]:
            # Rows that are added depend on the weights too: a second derivative has to see them.
            if indices is None or differentiable:
                of_embedding = _outer(weights, gradient, embedding)
            else:
                zeros = torch.zeros_like(embedding).flatten(0, -2)
                added = zeros.index_add(
                    0, _places(embedding, indices), gradient.reshape(-1, embedding.shape[-1])
                )
                of_embedding = added.reshape(embedding.shape)
        return of_weights, of_embedding, None


def _composed(weights: Tensor, embedding: Tensor, indices: Tensor | None) -> Tensor:
    """The same by operators that every mode and transform of PyTorch knows."""
    unusable = _unusable(weights)
    product = _product(weights.masked_fill(unusable, 0), embedding)
    if indices is not None:
        # The product is within a rounding of the rows, so that their difference is exact.
        product = product + (rows_at(embedding, indices) - product).detach()
    return product.masked_fill(unusable, math.nan)


def rows_at(embedding: Tensor, indices: Tensor) -> Tensor:
    """The vectors at indices (...) of an embedding (K, D), or at (..., L) of (L, K, D): (*indices.shape, D).

    Differentiable in the embedding.
    """
    rows = embedding.flatten(0, -2).index_select(0, _places(embedding, indices))
    return rows.reshape(*indices.shape, embedding.shape[-1])


def _places(embedding: Tensor, indices: Tensor) -> Tensor:
    """The rows of the flattened embedding that indices mean, (indices.numel(),)."""
    if embedding.dim() == 3:
        codebooks, codes, _ = embedding.shape
        indices = indices + torch.arange(codebooks, device=indices.device) * codes
    return indices.reshape(-1)


# mm and bmm, and not einsum, which no rule batches where the gradients of a backward pass come batched.
def _product(left: Tensor, matrices: Tensor) -> Tensor:
    """left (..., n) times a matrix (n, m), or (..., L, n) times (L, n, m)."""
    with _no_autocast(left.device):
        if matrices.dim() == 2:
            product = left.reshape(-1, left.shape[-1]).mm(matrices)
        else:
            product = left.reshape(-1, *left.shape[-2:]).transpose(0, 1).bmm(matrices).transpose(0, 1)
    return product.reshape(*left.shape[:-1], matrices.shape[-1])


def _outer(weights: Tensor, gradient: Tensor, embedding: Tensor) -> Tensor:
    """The sum over rows of weights (..., K) times gradient (..., D), in the embedding's shape."""
    shape = (-1, *embedding.shape[:-2])
    weights = weights.reshape(*shape, weights.shape[-1])
    gradient = gradient.reshape(*shape, gradient.shape[-1])
    with _no_autocast(weights.device):
        if embedding.dim() == 2:
            return weights.t().mm(gradient)
        return weights.permute(1, 2, 0).bmm(gradient.transpose(0, 1))


def _unusable(weights: Tensor) -> Tensor:
    """Which rows are NaN, (..., 1)."""
    return weights.narrow(-1, 0, 1).isnan()


def _no_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
