"""Fixtures: the Triton backend under its interpreter, and its compiled kernels run on the CPU."""

import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import interpreter

PREPARED = interpreter.prepare()


@pytest.fixture
def serves_cpu():
    """Backend "triton" serves CPU tensors, by a launcher that the test sets."""
    if not PREPARED:
        pytest.skip("no interpreter: triton is not installed or too old, or there is a GPU")
    with interpreter.interpreting():
        yield


@pytest.fixture
def interpreted(serves_cpu):
    """The name of the backend, its kernels interpreted."""
    with interpreter.launching_with(interpreter.launcher):
        yield "triton"


@pytest.fixture
def compile_only():
    """Skips where kernels cannot be compiled."""
    if not PREPARED:
        pytest.skip("triton is not installed or too old, or there is a GPU")


@pytest.fixture(params=[(0, 0.0), (1, 1.0), (2, 1.0)], ids=lambda p: f"order{p[0]}-jitter{p[1]:.0f}")
def compiled(request, serves_cpu):
    """The launcher that runs PTX for sm_90, in place: three orders of threads, without and with jitter."""
    if shutil.which("g++") is None:
        pytest.skip("running PTX needs g++")
    from compiled import PtxLauncher

    launcher = PtxLauncher(order=request.param[0], jitter=request.param[1], seed=7)
    with interpreter.launching_with(launcher):
        yield launcher


@pytest.fixture
def few_rows_are_many(monkeypatch):
    """The launch table's choices for many rows, from 256 rows on."""
    from fqvae_kernels.backends._triton import launch

    monkeypatch.setattr(launch, "BUSY_SLOTS", 128)
