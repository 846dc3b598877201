"""Whether a call does once what it says, or stands for other calls: what a module may change in it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def happens_once(tensor: Tensor) -> bool:
    """True unless a program is being captured from this call, or a backward pass repeats it."""
    # This comes first: torch.compile looks at no more.
    return not (torch.compiler.is_compiling() or _is_captured(tensor) or is_repeated())


def warn_left_out(setting: str) -> None:
    """Warn, as a program of torch.compile or torch.export is made, that a setting is no part of it."""
    warnings.warn(
        f"{setting} does nothing in a program of torch.compile or torch.export, which sets no codes: call "
        "the quantizer outside of it, or let init_from(z) set its codes",
        UserWarning,
        stacklevel=2,
    )


# torch.compile calls it while it traces (see `backends.unavailable_reason`).
warn_left_out._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _is_captured(tensor: Tensor) -> bool:
    """Whether it stands for others: under torch.func, FakeTensorMode, make_fx, jit.trace, CUDA graphs."""
    return (
        type(tensor) is not Tensor
        or tensor.device.type == "meta"
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
        or (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def is_repeated() -> bool:
    """Whether a backward pass runs: what checkpointing repeats within it has been counted before."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
