"""Tensors as the backends take them: contiguous, in the compute dtype, as addresses and codes."""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae_kernels._call import Incoming

# As `DType` in csrc/call.h numbers them.
DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


def compute_dtype(input: Tensor) -> torch.dtype:
    """What the arithmetic on an input is done in: float64 for float64, float32 for every other dtype."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def dense(tensor: Tensor) -> Tensor:
    """The tensor, contiguous in memory."""
    # The imaginary part of a conjugate is negated lazily, by a bit that a pointer does not show. Asking first
    # leaves out two operators, which cost many times more.
    if tensor.is_contiguous() and not tensor.is_neg():
        return tensor
    return tensor.contiguous().resolve_neg()


def dense_pair(input: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Input and codebook, contiguous, the codebook in the compute dtype."""
    dtype = compute_dtype(input)
    return dense(input), dense(codebook if codebook.dtype == dtype else codebook.to(dtype))


def dense_incoming(incoming: Incoming) -> Incoming:
    """Gradients, which may have come expanded or transposed, contiguous."""
    for gradient in incoming:
        if gradient is not None and not (gradient.is_contiguous() and not gradient.is_neg()):
            return Incoming(*(None if each is None else dense(each) for each in incoming))
    return incoming


def codebooks(codebook: Tensor) -> int:
    """How many codebooks: L of (L, K), 1 of (K,)."""
    return codebook.shape[0] if codebook.dim() == 2 else 1


def address(tensor: Tensor | None) -> int:
    """Where the tensor's memory begins, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself; of a DTensor, which FSDP2 makes of parameters outside forward, all of it.

    That is a collective call, which every rank must make. The gradient is the mean of the ranks' gradients,
    as FSDP2 takes it.
    """
    if type(tensor) in (Tensor, torch.nn.Parameter) or not hasattr(tensor, "full_tensor"):
        return tensor
    from torch.distributed.tensor import Partial  # it takes long, and whoever made a DTensor has done it

    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    full: Tensor = tensor.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if full.requires_grad:
        full.register_hook(lambda gradient: gradient / mesh.size())
    return full


def empty_whole(parameter: Tensor) -> Tensor:
    """An empty tensor like the parameter; like all of it where it is a DTensor."""
    return torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)


@torch.no_grad()
def put(values: Tensor, parameter: Tensor) -> None:
    """Write values, which are whole, to a parameter; of a DTensor, to the part that each rank holds.

    That is a collective call then, which every rank must make, and the values are those of rank 0.
    """
    if hasattr(parameter, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(
            values.to(parameter.device, parameter.dtype),
            parameter.device_mesh,  # type: ignore[attr-defined]
            parameter.placements,  # type: ignore[attr-defined]
        )
    parameter.copy_(values)


def values_behind(tensor: Tensor) -> list[float]:
    """The values of a tensor that may be traced, as far as they can be looked at here: those of a CPU tensor,
    also behind the transforms of torch.func. None of a program's."""
    if torch.compiler.is_compiling():
        return []
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    if (
        type(tensor) not in (Tensor, torch.nn.Parameter)
        or tensor.device.type != "cpu"
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    ):
        return []
    values: list[float] = tensor.detach().flatten().tolist()
    return values
