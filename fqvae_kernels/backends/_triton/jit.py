# mypy: ignore-errors
"""The decorator of kernels that the host launches."""

from __future__ import annotations

import inspect

import triton


def kernel(function):
    """triton.jit that compiles once for each set of tl.constexpr arguments and of types.

    Left to itself, Triton also compiles anew for an integer that is 1 or a multiple of 16, or a pointer that
    is not aligned to 16 bytes. The kernels would gain nothing by it.
    """
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation != "tl.constexpr"
    ]
    return triton.jit(function, do_not_specialize=names, do_not_specialize_on_alignment=names)
