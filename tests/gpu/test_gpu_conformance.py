"""The tests of the CPU backend on the GPU: every test with a `backend`, its calls sent there and back.

So both GPU backends meet the same float64 truth as the CPU does, for every dtype, mode, temperature and edge;
a test added there is run here too.

Stray accesses and races, by NVIDIA's compute-sanitizer. Without PyTorch's pool every tensor has an allocation
of its own, and a stray access leaves it:

    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    compute-sanitizer --tool memcheck python -m pytest -m gpu tests/gpu -k grid
    compute-sanitizer --tool racecheck python -m pytest -m gpu tests/gpu -k grid
    compute-sanitizer --tool synccheck python -m pytest -m gpu tests/gpu -k grid
"""

import inspect

import pytest
import test_api
import test_backward
import test_forward
import test_hypothesis
import test_many_rows
import test_nearest
import test_noise
import test_statistics

MODULES = (
    test_forward,
    test_backward,
    test_nearest,
    test_many_rows,
    test_hypothesis,
    test_statistics,
    test_noise,
    test_api,
)
# Their calls change tensors in place after they were sent, or are about a function without a backend.
NOT_HERE = {"test_backward_is_not_fooled_by_changes_in_place", "test_gumbel_noise"}

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("travelling_calls")]

for _module in MODULES:
    for _name, _test in vars(_module).items():
        if (
            _name.startswith("test_")
            and _name not in NOT_HERE
            and inspect.getmodule(_test) is _module
            and "backend" in inspect.signature(_test).parameters
        ):
            globals()[f"{_module.__name__}_{_name.removeprefix('test_')}"] = _test


def test_the_tests_are_found():
    assert sum(name.startswith("test_forward_") for name in globals()) >= 15
    assert sum(name.startswith("test_backward_") for name in globals()) >= 15
