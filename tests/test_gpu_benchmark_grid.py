"""The benchmark's grid on a stand-in for a GPU: what it measures and leaves behind, how long it takes."""

import csv
import itertools
from types import SimpleNamespace

import _case
import _contenders
import _cuda_timing
import _grid
import _report
import _timing
import pytest
import quantize_bench
import torch
from gpu_machine import LAUNCH, Case, Machine

CUDA = torch.device("cuda")


class Fake(_contenders.Contender):
    """A forward pass of one kernel, a backward pass of two; the host needs 100 us for each."""

    needs_arrays = False

    def __init__(self, machine, name, *, waits=0.0, prepare=0.0, seconds_a_pair=1e-12, host=1e-4):
        self.machine, self.name, self.waits, self.host = machine, name, waits, host
        self.seconds, self.seconds_a_pair = prepare, seconds_a_pair

    def prepare(self, case):
        self.machine.host(self.seconds)

    def forward(self, case):
        self.call(case, 1)

    def backward(self, case, outputs):
        self.call(case, 2)

    def call(self, case, kernels):
        self.machine.host(self.host)
        for _ in range(kernels):
            self.machine.kernel(1e-6 + case.pairs * self.seconds_a_pair)
        if self.waits:
            self.machine.synchronize()
            self.machine.host(self.waits)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def run(contenders, quick=False, after_cell=None):
    progress = _grid.Progress()
    return _grid.Grid(contenders, CUDA, quick=quick).run(progress, after_cell), progress.elapsed


def test_who_waits_for_the_device_is_found_out_once(machine):
    waits = Fake(machine, "waits", waits=2e-4)
    forward, backward = _cuda_timing.time_turn(waits, Case(1000, 64))
    assert machine.sleeps == [1e-3, 4e-3, 16e-3]
    assert _cuda_timing.waits_for_the_device("waits")
    # Its times hold its waiting, and later turns do without the pause that only adds to it.
    assert forward > 1e-4 and backward > 1e-4
    before = machine.now
    again = _cuda_timing.time_turn(waits, Case(1000, 64))
    assert machine.sleeps == [1e-3, 4e-3, 16e-3] and machine.now - before < 1e-3
    assert again[0] == pytest.approx(LAUNCH + 1e-6 + 64e-9 + 1e-4 + 2e-4)


@pytest.mark.parametrize("host", [1e-5, 1.5e-3, 1e-2, 1.0])
def test_a_slow_host_does_not_wait_for_the_device(machine, host):
    case = Case(1000, 64)
    slow = Fake(machine, "slow", host=host)
    forward, _ = _cuda_timing.time_turn(slow, case)
    assert not _cuda_timing.waits_for_the_device("slow")
    if host < 32e-3:
        assert forward == pytest.approx(1e-6 + 64e-9)


def test_a_host_that_stumbles_once_is_not_taken_to_wait(machine):
    slow = Fake(machine, "slow")
    pauses = itertools.chain([2e-3, 2e-3, 6e-3, 6e-3], itertools.repeat(1e-4))

    def call(case, kernels):
        machine.host(next(pauses))
        machine.kernel(1e-6)

    slow.call = call
    assert _cuda_timing.time_turn(slow, Case(10, 4))[0] == pytest.approx(1e-6)
    assert not _cuda_timing.waits_for_the_device("slow")


def test_the_whole_grid_ends_in_three_minutes(machine):
    """One contender compiles 9 s for each shape, one waits for the device and takes 30 ms at least."""
    contenders = [
        Fake(machine, "textbook", seconds_a_pair=3e-11, host=1e-3),
        Fake(machine, "textbook, compiled", prepare=9.0, seconds_a_pair=5e-12),
        Fake(machine, "waits", waits=15e-3, seconds_a_pair=3e-11),
        Fake(machine, "fqvae_kernels, cuda"),
    ]
    done = []
    cells, seconds = run(contenders, after_cell=lambda cells: done.append(len(cells)))
    assert seconds < 175
    assert done == list(range(1, 13))
    for cell in cells:
        assert list(cell.measured) == [contender.name for contender in contenders] and not cell.skipped
        assert {m.waits for name, m in cell.measured.items() if name != "waits"} == {False}
        assert cell.measured["waits"].waits
        assert all(measured.rounds >= 3 for measured in cell.measured.values())


def test_a_contender_that_waits_costs_the_grid_little(machine):
    """The pause ahead of each turn, which never was long enough for it, once took 64 ms of each."""
    contenders = [Fake(machine, "waits", waits=1e-4), Fake(machine, "fqvae_kernels, cuda")]
    cells, seconds = run(contenders)
    assert seconds < 60
    assert all(cell.measured["waits"].waits and cell.measured["waits"].rounds == 200 for cell in cells)


def test_rounds_are_planned_by_the_wall_clock(machine):
    """64 ms of the host for a microsecond of the device: 4 s are some thirty turns of two calls, not 200."""
    _, seconds = run([Fake(machine, "slow", host=32e-3)], quick=True)
    assert seconds < 5
    (first, *_), seconds = run([Fake(machine, "slow", host=32e-3)])
    assert 25 < first.measured["slow"].rounds <= 31
    assert seconds < 90


def test_wall_and_graphs_stand_beside_the_device(machine):
    ours = Fake(machine, "fqvae_kernels, cuda")
    ours.graph_forwards = lambda: {"": ours.forward, _contenders.SEED_GIVEN: ours.forward}
    (cell, _), _ = run([ours, Fake(machine, "waits", waits=1e-4)], quick=True)
    kernel = 1e-6 + cell.scalars * cell.codes * 1e-12
    measured = cell.measured[ours.name]
    assert measured.median("forward") == pytest.approx(kernel)
    assert measured.median("backward") == pytest.approx(2 * kernel, abs=LAUNCH)
    assert measured.wall_median("forward") == pytest.approx(1e-4 + LAUNCH + kernel)
    assert measured.wall_median("both") == pytest.approx(2e-4 + 3 * LAUNCH + kernel, rel=0.05)
    for variant in ("", _contenders.SEED_GIVEN):
        assert measured.graph_median("forward", variant) == pytest.approx(kernel)
        assert measured.graph_median("backward", variant) == pytest.approx(2 * kernel)
        assert measured.graph_median("both", variant) == pytest.approx(3 * kernel)
    assert not measured.graph_missing
    assert cell.measured["waits"].graph_missing == "waits for the device, which a capture refuses"
    assert cell.measured["waits"].graph_median("backward") is None


def test_what_cannot_be_captured_is_tried_once(machine):
    class Refused(Fake):
        def backward(self, case, outputs):
            if self.machine.recording is not None:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")
            super().backward(case, outputs)

    cells, _ = run([Refused(machine, "refused"), Fake(machine, "fine")], quick=True)
    for cell in cells:
        assert cell.measured["refused"].graph_missing.startswith("RuntimeError: CUDA error: operation not")
        assert not cell.measured["refused"].graph and cell.measured["fine"].graph
    assert machine.captures == 2 + 2 * 2  # forward and both of one in one cell, of the other in two


def test_large_arrays_are_not_captured(machine):
    large = Fake(machine, "textbook")
    large.needs_arrays = True
    (*_, cell), _ = run([large])
    assert (cell.scalars, cell.codes) == (1_048_576, 1024) and "run up to" in cell.skipped["textbook"]
    cells, _ = run([large])
    assert "writes large arrays" in cells[-2].measured["textbook"].graph_missing


def machine_of_results():
    return {**_report.describe_machine(torch.device("cpu"), None), "device": "NVIDIA H200"}


def test_the_table_and_the_file_tell_all_of_it(machine, tmp_path, capsys):
    contenders = [Fake(machine, "fqvae_kernels, cuda"), Fake(machine, "waits", waits=1e-4)]
    contenders[0].graph_forwards = lambda: {
        "": contenders[0].forward,
        _contenders.SEED_GIVEN: contenders[0].forward,
    }
    cells, _ = run(contenders, quick=True)
    _report.print_table(cells, contenders, machine_of_results())
    printed = capsys.readouterr().out
    assert "waits for the device inside its calls" in printed and "graph with a seed given" in printed
    assert "wall" in printed and "graph" in printed
    _report.write_csv(tmp_path / "table.csv", cells, machine_of_results())
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    ours, waits = (
        next(row for row in rows if row["contender"] == c.name and row["pass"] == "both") for c in contenders
    )
    assert float(ours["wall_ms"]) > float(ours["graph_replay_ms"]) > 0
    assert ours["graph_replay_seed_given_ms"] == ours["graph_replay_ms"]
    assert ours["waits_for_the_device"] == "" and waits["waits_for_the_device"] == "yes"
    assert waits["graph_replay_ms"] == "" and "capture refuses" in waits["graph_replay_missing"]


def test_a_benchmark_that_is_killed_keeps_its_cells(monkeypatch, tmp_path):
    """The second cell never ends; the file of the first is whole, with the header that all have."""

    def cell(self, scalars, codes, progress, title, later):
        if not later:
            raise KeyboardInterrupt
        seconds = {"forward": [1e-3] * 3, "backward": [], "both": []}
        return _grid.Cell(scalars, codes, measured={"some": _timing.Measured(seconds=seconds)})

    monkeypatch.setattr(_grid.Grid, "_run_cell", cell)
    monkeypatch.setattr(quantize_bench, "build_contenders", lambda *_: ([], []))
    monkeypatch.setattr(quantize_bench, "serving_backends", lambda *_: ("reference",))
    with pytest.raises(KeyboardInterrupt):
        quantize_bench.main(["--quick", "--output", str(tmp_path)])
    (file,) = tmp_path.iterdir()
    assert file.name == "quantize_cpu_quick.csv"
    (row,) = csv.DictReader(file.read_text().splitlines())
    assert (row["contender"], row["pass"], row["median_ms"], row["rounds"]) == ("some", "forward", "1", "3")
    _report.write_csv(tmp_path / "whole.csv", [], _report.describe_machine(torch.device("cpu"), None))
    assert (tmp_path / "whole.csv").read_text().splitlines() == file.read_text().splitlines()[:1]


def test_seeds_of_ours(monkeypatch):
    seeds = []
    ours = _contenders.Ours("reference")

    def quantize(z, codebook, *, temperature, seed, backend):
        seeds.append((seed, backend))
        return SimpleNamespace(quantized=z, indices=z, kl=z)

    ours._quantize = quantize
    case = _case.Case.make(5, 4, 0.7, torch.device("cpu"))
    for forward in ours.graph_forwards().values():
        forward(case)
    assert seeds == [(None, "reference"), (1, "reference")]
