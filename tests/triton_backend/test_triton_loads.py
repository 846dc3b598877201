"""What Triton loads in a call, by its own JIT and a stand-in for the driver.

A CUDA graph's capture refuses to load a module: all that it runs must have been loaded by calls before it,
whose seeds were ints, where the capture's is a tensor on the device.
"""

import json
import os
import pathlib
import subprocess
import sys

import interpreter
import pytest

import fqvae_kernels

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The kernels that each call of pretend_device.py loads."""
    if not interpreter.prepare():  # asked here too: this fixture is made before `compile_only`
        pytest.skip("Triton does not serve here, or there is a GPU")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    package = str(pathlib.Path(fqvae_kernels.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    run = subprocess.run(
        [sys.executable, str(HERE / "pretend_device.py")], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


pytestmark = pytest.mark.usefixtures("compile_only")


def test_a_first_call_loads_what_it_runs(loaded):
    """The stand-in sees what is loaded."""
    forward, backward = "gumbel_forward_kernel", "backward_kernel"
    assert set(loaded["warm-up"]) == {forward, "gumbel_weights_kernel", backward, "sum_partials_kernel"}
    assert set(loaded["warm-up, codebook per latent"]) == {forward, backward}
    assert set(loaded["warm-up, reinmax"]) == {"drawn_forward_kernel", "one_hot_kernel", backward}


def test_a_second_call_loads_nothing(loaded):
    """Whatever the seed: Triton makes programs of their own for 1 and multiples of 16, left to itself."""
    assert loaded["a second warm-up"] == []


def test_a_capture_loads_nothing(loaded):
    assert loaded["capture"] == []
    assert loaded["capture, codebook per latent"] == []
    assert loaded["capture, reinmax"] == []


def test_noise_of_a_seed_on_the_device_loads_nothing_more(loaded):
    assert loaded["noise"] == ["gumbel_noise_kernel"]
    assert loaded["noise of a tensor's seed"] == []


def test_a_temperature_on_the_device_loads_nothing_more(loaded):
    """Of any dtype."""
    assert loaded["temperatures"] == []
