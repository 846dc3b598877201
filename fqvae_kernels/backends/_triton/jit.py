# mypy: ignore-errors
"""The decorator of kernels that the host launches, and what Triton is told to do with them."""

from __future__ import annotations

import inspect

import torch
import triton

from fqvae_kernels.backends._triton.launch import interpreted

INTERPRETED = interpreted()
# Whether kernels are compiled for an NVIDIA GPU, and may hold its instructions; else for one of AMD.
NVIDIA = torch.version.hip is None


def _take_scalars_as_indices() -> None:
    """Have the interpreter of Triton before 3.7 count loops under NumPy 2.4, as later ones do.

    Its scalars are arrays of one element, which NumPy no longer takes for an int.
    """
    import triton.runtime.interpreter as interpreter

    patch = interpreter._patch_lang_tensor

    def patch_with_index(tensor, *scope):
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patch_with_index


if INTERPRETED and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
    _take_scalars_as_indices()


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


def settle_keys(module):
    """Take the keys of a module's functions, of which programs in Triton's cache have theirs, callees first.

    Left to itself, Triton (3.6, for one) takes a function's key at its first use, and has the global values
    of a callee in it only if the callee had a key by then: a process that began with another kernel would not
    find the programs.

    Args:
        module: its globals, when all functions are defined, each behind those that it calls.
    """
    for value in list(module.values()):
        if isinstance(value, triton.JITFunction):
            value.cache_key  # noqa: B018
