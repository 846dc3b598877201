"""The benchmark on a GPU, as far as that goes without one: rotation of inputs, waiting, names, bounds."""

from types import SimpleNamespace

import _case
import _contenders
import _cuda_timing
import _report
import _timing
import pytest
import quantize_bench
import torch
from _grid import Cell

from gpu_model import bound


def test_copies_fill_the_cache_twice():
    assert _case.copies_past_cache(10 * 2**20, 50 * 2**20) == 10
    assert _case.copies_past_cache(3 * 2**20, 50 * 2**20) == 34
    assert _case.copies_past_cache(2**40, 50 * 2**20) == 1
    assert _case.copies_past_cache(1, 50 * 2**20) == 4096


def test_copies_are_used_in_turn_and_are_equal():
    case = _case.Case.make(50, 8, 0.7, torch.device("cpu"))
    assert case.next_copy() is case
    case.copy(3)
    used = [case.next_copy() for _ in range(6)]
    assert [copy.z.data_ptr() for copy in used[:3]] == [copy.z.data_ptr() for copy in used[3:]]
    assert len({copy.z.data_ptr() for copy in used}) == 3
    for copy in used:
        assert copy.z.is_leaf and copy.z.requires_grad and copy.codebook is case.codebook
        for name in ("z", "grad_quantized", "grad_kl"):
            assert torch.equal(getattr(copy, name), getattr(case, name))


class Device:
    """Stands in for a GPU with a clock of its own: it sleeps when asked, and each pass takes it 2 ms."""

    def __init__(self, monkeypatch):
        self.ready, self.now, self.waits = 0.0, 0.0, []
        device = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                device.ready = max(device.ready, device.now)
                self.time = device.ready
                device.ready += 2e-3

            def query(self):
                return self.time <= device.now

            def elapsed_time(self, other):
                return (other.time - self.time) * 1e3

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", self.synchronize)
        monkeypatch.setattr(torch.cuda, "_sleep", self.sleep)
        monkeypatch.setattr(_cuda_timing, "_waits", {})

    def synchronize(self, _=None):
        self.now = self.ready = max(self.now, self.ready)

    def sleep(self, cycles):
        self.waits.append(cycles / 2.5e9)
        self.ready = self.now + cycles / 2.5e9


def test_a_turn_is_timed_once_it_is_queued_in_time(monkeypatch):
    """A wait of 1 ms and of 4 ms is too short for a host that needs 10 ms; the next turn knows."""
    device = Device(monkeypatch)

    class Slow(_contenders.Textbook):
        def forward(self, case):
            device.now += 5e-3
            return super().forward(case)

        def backward(self, case, outputs):
            device.now += 5e-3
            return super().backward(case, outputs)

    case = _case.Case.make(5, 4, 0.7, torch.device("cpu"))
    assert _timing._time_turn_cuda(Slow(), case) == pytest.approx(
        {"forward": 2e-3, "backward": 2e-3, "both": 4e-3}
    )
    assert device.waits == [1e-3, 4e-3, 16e-3]
    _cuda_timing.time_turn(Slow(), case)
    assert device.waits[3:] == [16e-3]


def test_a_contender_that_waits_for_the_device_is_timed_all_the_same(monkeypatch):
    device = Device(monkeypatch)

    class Waits(_contenders.Textbook):
        has_backward = False

        def forward(self, case):
            device.synchronize()

    forward, backward = _cuda_timing.time_turn(Waits(), _case.Case.make(5, 4, 0.7, torch.device("cpu")))
    assert forward > 0 and backward is None and device.waits[-1] == 64e-3


@pytest.mark.parametrize("quick", [False, True])
def test_results_are_named_after_the_device(quick):
    end = "_quick" if quick else ""
    assert quantize_bench.file_stem("cpu", quick) == f"quantize_cpu{end}"
    assert quantize_bench.file_stem("NVIDIA H100 80GB HBM3", quick) == f"quantize_nvidia_h100_80gb_hbm3{end}"


def test_no_gpu_is_said_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        quantize_bench.main(["--device", "cuda"])
    assert stop.value.code == 2
    assert "PyTorch finds no CUDA device here" in capsys.readouterr().err


def test_the_models_bound_is_put_beside_what_was_measured(tmp_path, capsys):
    assert bound.gpu_of("NVIDIA A100-SXM4-80GB").name == "A100"
    assert bound.gpu_of("NVIDIA H200").name == "H200"
    assert bound.gpu_of("NVIDIA GH200 480GB") is None
    assert (
        "knows A100, H100, H200, B200, not NVIDIA GeForce RTX 4090"
        in bound.Bounds("NVIDIA GeForce RTX 4090").missing
    )
    measured = _timing.Measured(seconds={"forward": [2e-4], "backward": [3e-4], "both": [5e-4]})
    cell = Cell(1000, 64, measured={"fqvae_kernels, cuda": measured})
    bounds = SimpleNamespace(seconds=lambda name, scalars, codes: {"forward": 1e-4, "backward": 2e-4}[name])
    quantize_bench.add_bounds([cell], bounds)
    assert measured.fraction_of_bound("forward") == 0.5
    assert measured.fraction_of_bound("both") == pytest.approx(0.6)
    machine = {**_report.describe_machine(torch.device("cpu"), None), "device": "NVIDIA H100 80GB HBM3"}
    _report.print_table([cell], [SimpleNamespace(name="fqvae_kernels, cuda", note="")], machine)
    assert "of the modelled bound: forward 50%, backward 67%, both 60%" in capsys.readouterr().out
    _report.write_csv(tmp_path / "table.csv", [cell], machine)
    header, forward = (line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()[:2])
    # The contender's name has a comma in it, so columns behind it stand one further.
    assert forward[header.index("fraction_of_modelled_bound") + 1] == "0.5"


def test_a_bound_of_an_installation_without_cuda_kernels(monkeypatch):
    def no_code(*_):
        raise bound.sass.CodeError("nothing there")
        yield

    monkeypatch.setattr(bound.sass, "cubins_of", no_code)
    bounds = bound.Bounds("NVIDIA H100 80GB HBM3")
    assert bounds.missing and bounds.seconds("forward", 1000, 64) is None
