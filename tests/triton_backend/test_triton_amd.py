"""The kernels compiled for a GPU of AMD, gfx942. Nobody has run them: that they compile is all that is known.

Its compiler takes NVIDIA's instructions in silence: it prints an error, and makes a kernel without them.
"""

import kernel_list
import pytest
import torch
from interpreter import launching_with

from fqvae_kernels import backends


@pytest.fixture
def hip(monkeypatch):
    """As in a PyTorch for AMD's GPUs."""
    monkeypatch.setattr(torch.version, "hip", "6.4", raising=False)


@pytest.fixture
def gpu(monkeypatch):
    """As where PyTorch finds a GPU; backends.choose remembers what it chose before."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backends.cuda, "unavailable_reason", lambda device: "no extension")
    backends._find_best.cache_clear()
    yield torch.device("cuda")
    backends._find_best.cache_clear()


class Compiler:
    """A launcher that compiles for gfx942, and runs nothing."""

    def __init__(self):
        self.found: dict[str, list[dict]] = {}
        self.drawing: list[dict] = []  # those that draw the noise

    def __call__(self, kernel, programs, arguments):
        from compiled import compile_kernel

        name, made = kernel.fn.__name__, compile_kernel(kernel, arguments, "gfx942", edits=("hip",))
        self.found.setdefault(name, []).append(made)
        draws = arguments.get("ESTIMATOR") == "gumbel" and arguments["weights"] is None
        if draws or name in ("gumbel_forward_kernel", "gumbel_weights_kernel"):
            self.drawing.append(made)


@pytest.fixture
def made(serves_cpu, hip):
    """What the calls of kernel_list.py run, by kernel."""
    compiler = Compiler()
    try:
        with launching_with(compiler):
            for _, call in kernel_list.recorded_calls():
                call()
    except RuntimeError as error:
        if "ROCm linker" in str(error):
            pytest.skip("Triton before 3.5 links with ROCm's linker, which is not here")
        raise
    return compiler


def test_every_kernel_compiles(made):
    """In 64-lane warps, whose rows lie beside each other as in those of 32: no exchange but at the ends."""
    assert len(made.found) == 8 and sum(map(len, made.found.values())) > 60
    for kernels in made.found.values():
        for found in kernels:
            assert found["stack"] == 0
            assert "approx" not in found["assembly"]


def test_logarithms_and_exponentials_are_there(made):
    """For four codes: two logarithms each; in float32, by the hardware's instructions."""
    assert len(made.drawing) > 20
    for found in made.drawing:
        double = "v_fma_f64" in found["assembly"]
        assert double or found["assembly"].count("v_log_f32") >= 8
        assert double or found["assembly"].count("v_exp_f32") >= 4


def test_it_serves_amd(gpu, hip, monkeypatch):
    monkeypatch.setattr(backends.triton, "_UNFIT", backends.triton._unfit("3.4.0"))
    assert backends.triton.unavailable_reason(gpu) is None
    assert backends.choose(None, gpu).name == "triton"


def test_an_old_triton_serves_nobody(gpu, monkeypatch):
    """It could not compile the kernels: backend=None falls to the reference."""
    monkeypatch.setattr(backends.triton, "_UNFIT", backends.triton._unfit("3.3.1"))
    reason = backends.triton.unavailable_reason(gpu)
    assert reason == "it needs triton 3.4 or newer, but triton 3.3.1 is installed"
    assert backends.choose(None, gpu).name == "reference"
