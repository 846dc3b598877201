"""The draws of a pass wherever plain PyTorch computes it: under torch.compile, and under torch.func.

A pass on its own draws with `reference.draw`. Under torch.func.vmap each sample is a part of a whole, whose
rows are counted together: they are numbered in C order of the tensor that holds all samples, as that tensor
lies. Most of PyTorch's operations move its samples to the front; `lies_as` moves them back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fqvae_kernels import _operators, reference
from fqvae_kernels._call import Call
from fqvae_kernels._tensors import codebooks


def draw(call: Call, input: Tensor, codebook: Tensor) -> Tensor:
    """As `reference.draw`, for tensors that may be traced or batched."""
    if torch.compiler.is_compiling():
        return _operators.draw(call, input, codebook)
    if not _is_vmapped():
        return reference.draw(call, input, codebook)
    layout = _Layout(
        input.dim() - 1 if call.is_logits else None,
        input.dim() - 1 - call.is_logits if codebooks(codebook) > 1 else None,
    )
    seed = call.seed
    drawn: Tensor = _Draws.apply(  # type: ignore[no-untyped-call]
        input.detach(),
        codebook.detach(),
        seed if isinstance(seed, Tensor) else None,
        layout,
        call.changed(temperature=1.0, seed=0 if isinstance(seed, Tensor) else seed),
    )
    return drawn.squeeze(-1) if call.is_logits and call.estimator != "gumbel" else drawn


def lies_as(values: Tensor, given: Tensor, moved: int | None = None) -> Tensor:
    """The same values; under torch.func.vmap their whole has its samples where that of `given` has them.

    values: made of given's, with as many dimensions and in their order, but for the dimension `moved` of
    given, which is the last one of values, or the last two.
    """
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active() or not _is_vmapped():
        return values
    if moved is not None:
        moved %= given.dim()
    there: Tensor = _LiesAs.apply(values, given.detach(), moved)  # type: ignore[no-untyped-call]
    return there


def _is_vmapped() -> bool:
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(interpreter.key() == torch._C._functorch.TransformType.Vmap for interpreter in stack)


class _LiesAs(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, given: Tensor, moved: int | None) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: Any) -> Tensor:
        return tangent.view_as(tangent)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], values: Tensor, given: Tensor, moved: int | None
    ) -> tuple[Tensor, int | None]:
        dim, given_dim = in_dims[:2]
        if given_dim is None:  # samples come in at the front, as in `_Draws`
            given_dim, given = 0, given.unsqueeze(0).expand(info.batch_size, *given.shape)
        if dim is None:
            return _LiesAs.apply(values, given.select(given_dim, 0), moved), None  # type: ignore[no-untyped-call]
        to = given_dim
        if moved is not None:
            moved += given_dim <= moved
            to -= moved < given_dim
        return _LiesAs.apply(values.movedim(dim, to), given, moved), to  # type: ignore[no-untyped-call]


class _Layout(NamedTuple):
    """Which dimensions of an input are special."""

    code: int | None  # holds the codes of given logits
    latent: int | None  # holds the latents, each with a codebook of its own: varies fastest among rows

    def insert(self, dim: int) -> _Layout:
        """The same once a dimension has come in at `dim`."""
        code, latent = (None if at is None else at + (dim <= at) for at in self)
        return _Layout(code, latent)


class _Draws(torch.autograd.Function):
    """The draws of an input: its own shape, with the codes last if it does not hold them."""

    @staticmethod
    def forward(input: Tensor, codebook: Tensor, seed: Tensor | None, layout: _Layout, call: Call) -> Tensor:
        rows = [dim for dim in range(input.dim()) if dim not in layout]
        if layout.latent is not None:
            rows.append(layout.latent)
        flat = torch.empty([input.shape[dim] for dim in rows], dtype=codebook.dtype, device=input.device)
        call = call.changed(is_logits=False, seed=call.seed if seed is None else seed)
        drawn = reference.draw(call, flat, codebook)
        if call.estimator != "gumbel":
            drawn = drawn.unsqueeze(-1)
        order = [*rows, input.dim() if layout.code is None else layout.code]
        drawn = drawn.permute([order.index(dim) for dim in range(len(order))])
        return drawn if call.estimator == "gumbel" or layout.code is not None else drawn.squeeze(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        return (None,) * 5

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        return None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        input: Tensor,
        codebook: Tensor,
        seed: Tensor | None,
        layout: _Layout,
        call: Call,
    ) -> tuple[Tensor, int]:
        dim, book_dim, seed_dim = in_dims[:3]
        if book_dim is not None:
            codebook = codebook.select(book_dim, 0)  # only its shape and dtype count
        if dim is None:
            dim = 0
            input = input.unsqueeze(0).expand(info.batch_size, *input.shape)
        layout = layout.insert(dim)
        if seed is None or seed_dim is None:
            return _Draws.apply(input, codebook, seed, layout, call), dim  # type: ignore[no-untyped-call]
        every = [
            _Draws.apply(input, codebook, seed.select(seed_dim, i), layout, call).select(dim, i)  # type: ignore[no-untyped-call]
            for i in range(info.batch_size)
        ]
        return torch.stack(every, dim), dim
