"""Where the CUDA backend serves, and what a launch does to the current device: without a GPU."""

import ctypes
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import fqvae_kernels.__main__
from fqvae_kernels import backends, gumbel_noise, gumbel_quantize
from fqvae_kernels.backends import cuda
from fqvae_kernels.backends._cuda import launcher
from fqvae_kernels.backends._cuda.geometry import Device
from fqvae_kernels.backends._cuda.support import why_unsupported

ROOT = Path(__file__).resolve().parents[1]
BUILT = "75-real 80-real 86-real 90-real 90-virtual"


@pytest.mark.parametrize(
    ("driver", "toolkit", "architectures", "capability", "expected"),
    [
        (13000, 13000, BUILT, (9, 0), None),
        (13010, 12080, BUILT, (9, 0), None),
        # Machine code runs under any driver of the toolkit's major release, and on later minor capabilities.
        (12020, 12080, BUILT, (9, 0), None),
        (12020, 12080, BUILT, (8, 9), None),
        (12020, 12080, "80", (8, 0), None),
        # PTX runs on every later GPU, under drivers that are new enough to compile it.
        (12080, 12080, BUILT, (10, 0), None),
        (12080, 12080, "80", (9, 0), None),
        (12070, 12080, BUILT, (10, 0), r"12\.8 and holds only PTX .*10\.0.*12\.7 cannot .*ARCHS=100"),
        (12080, 13000, BUILT, (9, 0), r"built with CUDA 13\.0, and the driver knows CUDA 12\.8: update"),
        (
            13000,
            13000,
            BUILT,
            (7, 0),
            r"capability 7\.5, 8\.0, 8\.6, 9\.0, and this GPU has 7\.0: .*ARCHS=70",
        ),
        (13000, 13000, "86-real 86-virtual", (8, 0), r"8\.6, and this GPU has 8\.0"),
        (13000, 13000, "90-real", (10, 0), r"9\.0, and this GPU has 10\.0"),
        (0, 13000, BUILT, (9, 0), "no CUDA driver"),
    ],
)
def test_why_unsupported(driver, toolkit, architectures, capability, expected):
    reason = why_unsupported(driver, toolkit, architectures, capability)
    if expected is None:
        assert reason is None
    else:
        assert re.search(expected, reason), reason


class Machine:
    """A stand-in for a machine with two GPUs, and for the extension on it."""

    def __init__(self, monkeypatch, driver=13000, capabilities=((9, 0), (7, 0))):
        self.driver, self.asked = driver, 0
        self.launches = []
        module = types.ModuleType("fqvae_kernels._cuda")
        module.CUDA_VERSION, module.ARCHITECTURES, module.KERNELS = 13000, BUILT, ("reduce",)
        module.driver_version, module.launch = self.driver_version, self.launch
        monkeypatch.setitem(sys.modules, "fqvae_kernels._cuda", module)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        for name, instead in {
            "is_available": lambda: True,
            "device_count": lambda: len(capabilities),
            "current_device": lambda: 0,
            "get_device_capability": lambda device: capabilities[getattr(device, "index", device)],
            "get_device_name": lambda device: "a GPU",
        }.items():
            monkeypatch.setattr(torch.cuda, name, instead)
        monkeypatch.setattr(cuda, "launcher", launcher.Extension())

    def driver_version(self):
        self.asked += 1
        return self.driver

    def launch(self, *arguments):
        self.launches.append(arguments)


@pytest.fixture
def machine(monkeypatch):
    """Makes a Machine; what has been asked of the real one is forgotten, before and after."""

    def forget():
        backends._find_best.cache_clear()
        launcher._why_no_gpu.cache_clear()

    forget()
    with monkeypatch.context() as patches:
        yield lambda **options: Machine(patches, **options)
    forget()


def gpu(index):
    return torch.device("cuda", index)


def test_each_gpu_gets_the_best_that_serves_it(machine):
    machine = machine()
    assert backends.choose(None, gpu(0)).name == "cuda"
    assert backends.choose(None, gpu(1)).name in ("triton", "reference")
    assert backends.choose("cuda", gpu(0)).name == "cuda"
    with pytest.raises(RuntimeError, match=r"'cuda' cannot .*'cuda:1': .*this GPU has 7\.0.*reference"):
        backends.choose("cuda", gpu(1))
    assert backends.unavailable_reason("cuda") is None  # some device here
    for _ in range(3):
        backends.choose(None, gpu(0)), backends.choose("cuda", gpu(0))
    assert machine.asked == 2, "each GPU is asked once"


def test_a_driver_older_than_the_toolkit(machine, capsys):
    machine(driver=12080)
    assert backends.choose(None, gpu(0)).name in ("triton", "reference")
    assert "cuda" not in backends.available_backends()
    with pytest.raises(RuntimeError, match=r"driver knows CUDA 12\.8"):
        backends.choose("cuda", gpu(0))
    fqvae_kernels.__main__.main()
    assert "driver knows CUDA 12.8" in capsys.readouterr().out


def test_the_report_names_each_gpu(machine, capsys):
    machine()
    fqvae_kernels.__main__.main()
    said = capsys.readouterr().out
    first, second = said[said.index("cuda:0: a GPU, compute capability 9.0") :].split("\ncuda:1: ")
    assert "backend=None takes cuda" in " ".join(first.split())
    assert "this GPU has 7.0" in second


def test_a_launch_of_the_extension(machine, monkeypatch):
    machine = machine()
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 70 + index, raising=False)
    cuda.launcher.launch(launcher.Launch("reduce", (2, 3), 5, 1), b"packed", (), gpu(1))
    assert machine.launches == [(0, 2, 3, 5, b"packed", 1, 71)]


def test_the_extension_without_a_driver():
    module = pytest.importorskip("fqvae_kernels._cuda", reason="the CUDA kernels are not built")
    if torch.cuda.is_available():
        pytest.skip("there is a driver")
    assert module.driver_version() == 0 or torch.version.cuda is None
    assert why_unsupported(0, module.CUDA_VERSION, module.ARCHITECTURES, (9, 0)) is not None


def test_noise_knows_the_default_device():
    with torch.device("meta"):
        assert gumbel_noise(1, 2, 3).device.type == "meta"
    assert gumbel_noise(1, 2, 3, device="cpu").device.type == "cpu"


def test_a_compiled_call_asks_what_cannot_be_traced(monkeypatch):
    """torch.compile cannot look into a compiled module, and asks it while it traces."""

    class Asks:
        def unavailable_reason(self, device):
            return None if ctypes.CDLL(None).getpid() else "no process"

        def describe(self, device):
            return Device(1, 2**17)

        def launch(self, *launch):
            pass

    monkeypatch.setattr(cuda, "launcher", Asks())
    torch._dynamo.reset()
    try:
        call = torch.compile(
            lambda z: gumbel_quantize(z, z, seed=1, backend="cuda"), fullgraph=True, backend="aot_eager"
        )
        assert call(torch.zeros(3)).indices.shape == (3,)
    finally:
        torch._dynamo.reset()


@pytest.fixture(scope="module")
def on_device(tmp_path_factory):
    """What csrc/tests/on_device.cpp prints, by the name of the case."""
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    program = tmp_path_factory.mktemp("on_device") / "on_device"
    source = ROOT / "csrc" / "tests" / "on_device.cpp"
    subprocess.run([compiler, "-std=c++17", "-Wall", "-Werror", source, "-o", program], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return dict(line.split(": ") for line in printed.splitlines())


def test_a_launch_opens_no_context_on_another_gpu(on_device):
    assert on_device["another by default"] == "set 1 launch on 1, contexts 1"


def test_a_launch_leaves_the_current_device(on_device):
    assert on_device["current already"] == "launch on 1, contexts 1"
    assert on_device["another with a context"] == "set 1 launch on 1 set 0, contexts 0 1"
    assert on_device["none such"] == "no such device, contexts 0"
