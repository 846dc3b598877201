"""The arithmetic of a CUDA thread on the CPU: the instruction set "device" (csrc/row/approximate.h).

Its two approximate functions are moved to either end of their documented errors, and to both by the bits of
the argument; results must keep their tolerances wherever a GPU's values lie.
"""

import itertools

import numpy as np
import pytest
import torch
import truth
from cases import DTYPES, check_forward, double, make, output_gradients
from gradcases import assert_gradients, library_gradients

ERRORS = ("none", "up", "down", "scattered")
CODES = (1, 2, 3, 5, 8, 64, 67)
TEMPERATURES = (0.05, 0.2, 1.0, 3.0)


@pytest.fixture(params=ERRORS)
def device(native, request):
    """The compiled module with the arithmetic of a CUDA thread, once for every place in the error bounds."""
    before = native.instruction_set()
    native.use_instruction_set("device")
    native.set_device_error(request.param)
    try:
        assert native.instruction_set() == "device"
        yield native
    finally:
        native.set_device_error("none")
        native.use_instruction_set(before)


def grid():
    """A call for every dtype, temperature, and kind of input; the codes take turns."""
    codes = itertools.cycle(CODES)
    for dtype, temperature, is_logits, hard in itertools.product(
        DTYPES, TEMPERATURES, (False, True), (False, True)
    ):
        yield {
            "codes": next(codes),
            "dtype": dtype,
            "temperature": temperature,
            "is_logits": is_logits,
            "hard": hard,
        }


@pytest.mark.parametrize("latents", [0, 3])
def test_forward(device, latents):
    for options in grid():
        case = make(60, latents=latents, seed=2**34 + 9, row_offset=2**32 - 20, **options)
        for weights in (False, True):
            check_forward(case, case.call("cpu", return_weights=weights), weights=weights)


@pytest.mark.parametrize("latents", [0, 3])
def test_backward(device, latents):
    for options in grid():
        case = make(60, latents=latents, seed=31, **options)
        for weights in (False, True):
            a, h, v = output_gradients(case, weights=weights)
            got = library_gradients(case, "cpu", a, h, v)
            assert_gradients(case, got, case.true_gradients(a, h, v), bound=case.tolerance)


def test_noise_of_every_u(device):
    """All 2^23 values of u; the nine low bits of a word, which must not matter, vary too."""
    every = torch.arange(2**23, dtype=torch.int64) * 512
    every += torch.arange(2**23) * 2654435761 % 512
    bits, got = every.to(torch.int32), torch.empty(2**23)
    device.gumbel_from_words(bits.data_ptr(), bits.numel(), False, got.data_ptr())
    expected = truth.gumbel_from_words(every.numpy())
    error = np.abs(double(got) - expected) / np.maximum(1.0, np.abs(expected))
    worst = int(error.argmax())
    assert error[worst] <= 2e-6, f"u number {worst}: got {got[worst]}, expected {expected[worst]}"


def test_the_error_reaches_the_results(native):
    """Each place in the bounds gives other bits of noise: the tests above test four different things."""
    before = native.instruction_set()
    bits = (torch.arange(4096, dtype=torch.int64) * 2**20).to(torch.int32)
    outputs = []
    try:
        native.use_instruction_set("device")
        for error in ERRORS:
            native.set_device_error(error)
            outputs.append(torch.empty(4096))
            native.gumbel_from_words(bits.data_ptr(), 4096, False, outputs[-1].data_ptr())
    finally:
        native.set_device_error("none")
        native.use_instruction_set(before)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(outputs, 2))
