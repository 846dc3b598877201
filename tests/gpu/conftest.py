"""Fixtures of the GPU tests: the device, the backends on it, and calls that travel there and back.

FQVAE_GPU_TESTS_ON=cpu runs these tests on the CPU, with the backends that take CPU tensors: that checks the
tests, not the GPU.
"""

import functools
import os

import pytest
import torch

import fqvae_kernels
from fqvae_kernels import backends

ON_CPU = os.environ.get("FQVAE_GPU_TESTS_ON") == "cpu"
NAMES = ("cuda", "triton", "cpu") if ON_CPU else ("cuda", "triton")
FUNCTIONS = ("gumbel_quantize", "gumbel_quantize_logits", "nearest_quantize")


DEVICE = torch.device("cpu" if ON_CPU else "cuda")


def pytest_runtest_setup(item):
    # Skips that come from one place are one line of the summary.
    if not ON_CPU and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device on this machine")
    name = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
    reason = None if name is None else backends.unavailable_reason(name, DEVICE)
    if reason is not None:
        pytest.skip(f"backend {name!r}: {reason}")


@pytest.fixture
def device():
    """The device under test."""
    return DEVICE if ON_CPU else torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=NAMES)
def backend(request):
    """The name of a backend that serves the device."""
    return request.param


def travelling(function, device):
    """The function, with its CPU tensors sent to the device and its results brought back, gradients too."""

    def sent(value):
        return value.to(device) if isinstance(value, torch.Tensor) and value.device.type == "cpu" else value

    @functools.wraps(function)
    def call(values, codebook, **options):
        result = function(sent(values), sent(codebook), **options)
        return type(result)(*(None if output is None else output.cpu() for output in result))

    return call


@pytest.fixture
def travelling_calls(request, monkeypatch, device):
    """The public functions, in the package and where a test's module has imported them, take CPU tensors."""
    for module in (fqvae_kernels, *request.module.MODULES):
        for name in FUNCTIONS:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, travelling(getattr(fqvae_kernels, name), device))
