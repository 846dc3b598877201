"""Fixtures shared by all tests: the backends of this machine, poisoned memory, deterministic hypothesis."""

import contextlib
import functools
import os
import pathlib
import sys
from dataclasses import dataclass

# Workers of pytest-xdist share the processors: with threads for all of them in each worker, threads wait for
# each other, and what takes a second takes ten. It has to be said before PyTorch and NumPy are imported.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import pytest
import torch
from hypothesis import HealthCheck, settings

import fqvae_kernels

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parent / "triton_backend")]

import interpreter  # noqa: E402

# Before any test imports triton otherwise, torch.compile's own among them.
interpreter.prepare()

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")


def pytest_configure(config):
    # The poisoned memory comes with PyTorch's deterministic mode, whose other warnings are no concern here.
    config.addinivalue_line(
        "filterwarnings", "ignore:.*does not have a deterministic implementation:UserWarning"
    )


@functools.cache
def native_module():
    """The compiled module, or None where the package was installed without one."""
    if "cpu" not in fqvae_kernels.available_backends():
        return None
    from fqvae_kernels import _native

    return _native


@dataclass(frozen=True)
class Target:
    """A backend that serves tensors on the CPU and, for "cpu", the instruction set it is forced to use."""

    backend: str
    instruction_set: str | None = None

    def __str__(self):
        return self.backend if self.instruction_set is None else f"{self.backend}-{self.instruction_set}"


def targets() -> list[Target]:
    found = [Target(name) for name in fqvae_kernels.available_backends() if name == "reference"]
    native = native_module()
    if native is not None:
        found += [Target("cpu", name) for name in native.instruction_sets()]
    return found


@contextlib.contextmanager
def forced(instruction_set):
    """The compiled module with an instruction set forced, put back afterwards. None: nothing to force."""
    if instruction_set is None:
        yield
        return
    native = native_module()
    before = native.instruction_set()
    native.use_instruction_set(instruction_set)
    try:
        assert native.instruction_set() == instruction_set
        yield
    finally:
        native.use_instruction_set(before)


@pytest.fixture(params=targets(), ids=str)
def backend(request):
    """The name of a backend; the cpu one once for every instruction set that it has here."""
    with forced(request.param.instruction_set):
        yield request.param.backend


@pytest.fixture(params=[target for target in targets() if target.backend == "cpu"] or [None], ids=str)
def every_native(request):
    """The compiled module, once for every instruction set; the test is skipped where there is none."""
    if request.param is None:
        pytest.skip("the package was installed without the cpu backend")
    with forced(request.param.instruction_set):
        yield native_module()


@pytest.fixture
def native():
    """The compiled module; the test is skipped where there is none."""
    module = native_module()
    if module is None:
        pytest.skip("the package was installed without the cpu backend")
    return module


@pytest.fixture
def cpu_backend(native):
    """ "cpu", with the instruction set that the package picked."""
    return "cpu"


@pytest.fixture(autouse=True)
def poisoned_memory():
    """torch.empty and its like hold NaN, or the largest integer, so that what nobody wrote shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.fixture
def threads():
    """A function that sets torch's number of threads; the number is put back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
