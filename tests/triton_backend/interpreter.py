"""Triton's interpreter, made fit for the tests: bfloat16 rounds as on hardware, overflow is no warning.

`prepare` must run before the first import of triton in the process: what is decorated when TRITON_INTERPRET
is not set, Triton's own functions included, cannot be interpreted.
"""

import contextlib
import functools
import os

import numpy as np
import torch

VARIABLE = "TRITON_INTERPRET"


@functools.cache
def prepare() -> bool:
    """Import triton and the kernels as code to be interpreted; the environment stays as it was.

    Not where a GPU is: there the tests marked gpu run the kernels themselves. Nor where Triton is missing or
    too old. Returns whether it did.
    """
    from fqvae_kernels.backends import triton as backend

    if backend._UNFIT is not None or torch.cuda.is_available():
        return False
    with interpreting():
        import triton.runtime.interpreter as interpreter

        import fqvae_kernels.backends._triton.backward
        import fqvae_kernels.backends._triton.drawn
        import fqvae_kernels.backends._triton.forward  # noqa: F401

        builder = interpreter.InterpreterBuilder
        plain = builder.cast_impl

        def cast(self, source, target):
            """bfloat16 by PyTorch: the interpreter's own conversion truncates."""
            names = (str(source.dtype.scalar), str(target.scalar))
            if names == ("fp32", "bf16"):
                rounded = (
                    torch.from_numpy(np.array(source.data, ndmin=1)).to(torch.bfloat16).view(torch.int16)
                )
                data = rounded.numpy().view(np.uint16).reshape(source.data.shape)
            elif names == ("bf16", "fp32"):
                data = (source.data.astype(np.uint32) << 16).view(np.float32)
            else:
                return plain(self, source, target)
            return interpreter.TensorHandle(data, target.scalar)

        builder.cast_impl = cast
    return True


@contextlib.contextmanager
def interpreting():
    """The environment that has backend "triton" serve CPU tensors."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


@contextlib.contextmanager
def launching_with(launcher):
    """Within, the backend's kernels go to this launcher in the place of the device."""
    from fqvae_kernels.backends._triton import launch

    before, launch._launcher = launch._launcher, launcher
    try:
        yield
    finally:
        launch._launcher = before


def launcher(kernel, programs, arguments):
    """What takes the place of the device."""
    from fqvae_kernels.backends._triton.launch import on_device

    with np.errstate(all="ignore"):
        on_device(kernel, programs, arguments)
