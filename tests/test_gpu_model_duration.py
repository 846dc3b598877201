"""The cost model's times, against numbers worked out by hand: residency, rounds, waves, reduce, gaps."""

import math
import shutil

import pytest
from listings import listing

from gpu_model import calls, duration, program, sass, schedule
from gpu_model import launch as launches
from gpu_model.launch import ROOT
from gpu_model.specs import GPUS

H100 = GPUS["H100"]


@pytest.mark.parametrize(
    ("name", "threads", "registers", "shared", "blocks"),
    [
        ("H100", 128, 96, 1152, 5),  # 96 registers of 128 threads: 12,288 of 65,536
        ("H100", 128, 97, 1152, 4),  # 104 * 32 = 3,328 registers a warp, 13 units of 256: 13,312 a block
        ("H100", 128, 32, 2048, 16),  # 2,048 threads
        ("H100", 32, 16, 0, 32),  # never more than 32 blocks
        ("H100", 128, 32, 48 * 1024, 4),  # 49 KB of 228
        ("A100", 128, 96, 33_280 + 1152, 4),  # 35,456 bytes of 167,936
        ("H100", 128, 96, 33_280 + 1152, 5),
        ("H100", 1024, 64, 0, 1),
    ],
)
def test_blocks_resident(name, threads, registers, shared, blocks):
    memory = GPUS[name].shared_memory
    assert duration.blocks_resident(memory, threads=threads, registers=registers, shared=shared) == blocks


def test_few_warps_do_not_fill_a_scheduler():
    assert duration.slot_cycles(0) == 0
    assert duration.slot_cycles(1) == pytest.approx(2.25)
    assert duration.slot_cycles(4) == pytest.approx(4.8)
    assert duration.slot_cycles(16) == 16
    # 100 slots: a warp alone issues for 225 cycles and waits; five are busy for 565 and hide the wait.
    assert duration.round_cycles(100, 1, 273) == pytest.approx(498)
    assert duration.round_cycles(100, 5, 273) == pytest.approx(565)
    assert duration.round_cycles(100, 0, 273) == 0


SLOTS = duration.Slots(pair=10.0, row=60.0, start=200.0)


def grid(rows, lanes, blocks):
    return duration.Grid(rows, codes=64, lanes=lanes, blocks=blocks, resident=5, threads=128)


def test_one_wave():
    # 132 * 128 rows: one block on each multiprocessor, one warp on each scheduler, one row a thread.
    # Start 200 * 2.25 + 355 = 805; row 64 * 10 + 60 = 700 slots: 700 * 2.25 + 273 = 1,848.
    cycles = duration.launch_cycles(132, SLOTS, grid(132 * 128, lanes=1, blocks=132))
    assert cycles == pytest.approx(805 + 1848)
    # Four threads a row and four times the blocks: four warps, rows of 16 codes.
    # Start max(200 * 4.8, 805); row 220 slots: max(220 * 4.8, 220 * 2.25 + 273) = 1,056.
    cycles = duration.launch_cycles(132, SLOTS, grid(132 * 128, lanes=4, blocks=4 * 132))
    assert cycles == pytest.approx(960 + 1056)
    seconds = duration.launch_seconds(H100, SLOTS, grid(132 * 128, lanes=4, blocks=4 * 132))
    assert seconds == pytest.approx((960 + 1056) / 1.98e9)
    slow = duration.launch_seconds(H100, SLOTS, grid(132 * 128, lanes=4, blocks=528), bytes_moved=3.35e9)
    assert slow == pytest.approx(1e-3)


def test_codes_are_dealt_out_four_at_a_time():
    assert duration.pairs_of_lane(64, 1) == 64
    assert duration.pairs_of_lane(66, 8) == 12
    assert duration.pairs_of_lane(5, 4) == 4


def test_chunks_that_do_not_come_out_even():
    """A persistent grid: 660 blocks, 1,000 chunks; 340 blocks have two, three of them on a multiprocessor."""
    cycles = duration.launch_cycles(132, SLOTS, grid(1000 * 128, lanes=1, blocks=660))
    start = 200 * (1.4 + 0.85 * 5)
    assert cycles == pytest.approx(start + 700 * 5.65 + 700 * 3.95)
    even = duration.launch_cycles(132, SLOTS, grid(660 * 128, lanes=1, blocks=660))
    assert even == pytest.approx(start + 700 * 5.65)


def test_more_blocks_than_fit_come_in_turns():
    """16 blocks on a multiprocessor that holds five: three turns of five and one of one."""
    cycles = duration.launch_cycles(132, SLOTS, grid(16 * 132 * 128, lanes=1, blocks=16 * 132))
    assert cycles == pytest.approx(3 * (200 * 5.65 + 700 * 5.65) + 805 + 1848)
    # The first blocks have the rows that are left over: one more on each multiprocessor, in the first turn.
    more = duration.launch_cycles(132, SLOTS, grid(17 * 132 * 128, lanes=1, blocks=16 * 132))
    assert more - cycles == pytest.approx(1848)


def reduce_cycles(parts, length, threads, lanes, loads, adds):
    return duration.reduce_seconds(H100, parts, length, duration.Reduce(threads, lanes, loads, adds)) * 1.98e9


def test_reduce():
    """2,048 parts of 64: four warps, 512 parts each, four loads on the way: 128 waits of 273 + 8 cycles."""
    before = reduce_cycles(2048, 64, 128, lanes=4, loads=4, adds=1)
    assert before == pytest.approx(128 * 281 + 29 + 3 * 8)
    assert before / 1.98e9 == pytest.approx(18.19e-6, rel=1e-3)
    # All of a thread's loads before its additions: those are not hidden. Eight blocks of eight outputs.
    eight = reduce_cycles(512, 64, 256, lanes=32, loads=8, adds=8)
    assert eight == pytest.approx(2 * (273 + 64) + 29 + 31 * 8)
    # The same in two blocks: the ports of two multiprocessors are what takes time, 2,048 cycles.
    two = reduce_cycles(512, 64, 1024, lanes=32, loads=8, adds=8)
    assert two == pytest.approx(512 * 64 * 8 / (64 * 2) + 29 + 31 * 8)
    # No one to share an output with, one part: a single wait.
    assert reduce_cycles(1, 64, 64, lanes=1, loads=4, adds=4) == pytest.approx(273 + 4 * 8)
    # 65,536 parts of 32 numbers in one block: 16 MiB through 64 bytes a cycle.
    one = reduce_cycles(65_536, 32, 1024, lanes=32, loads=64, adds=64)
    assert one == pytest.approx(65_536 * 32 * 8 / 64 + 29 + 31 * 8)


def test_gaps_of_a_graph():
    assert duration.graph_seconds(H100, [2e-6, 3e-6]) == pytest.approx(7.6e-6)
    assert duration.graph_seconds(GPUS["B200"], [2e-6]) == pytest.approx(2.8e-6)


def test_how_reduce_is_described():
    assert duration.Reduce.parse("128,32,8,8") == duration.REDUCE
    for text in ("128,4,4", "128,256,4,1", "0,1,1,1", "a,b,c,d"):
        with pytest.raises(ValueError, match=r"invalid literal|" + text):
            duration.Reduce.parse(text)


def test_an_h200_is_an_h100_with_faster_memory():
    h200 = GPUS["H200"]
    assert (h200.multiprocessors, h200.clock, h200.rates) == (132, H100.clock, H100.rates)
    assert h200.bandwidth == 4.8e12
    assert math.isclose(h200.clock * h200.multiprocessors * 128 * 2, 67e12, rel_tol=0.005)


def steps(*lines):
    (function,) = sass.parse(listing(*lines))
    return [schedule.step_of(instruction) for instruction in function.instructions]


def test_what_an_instruction_reads_and_writes():
    wide, carry, load, store, compare, predicated = steps(
        "IMAD.WIDE.U32 R4, R2, R3, R6",
        "IADD3 R8, P2, R4, R5, RZ",
        "LDS.128 R12, [R1+UR4]",
        "STG.E.64 desc[UR6][R2.64], R12",
        "FSETP.GEU.AND P3, PT, |R5|, R4, PT",
        "@!P3 FADD R1, R1, -R2",
    )
    assert wide == (("R4", "R5"), ("R2", "R3", "R6", "R7"), "integer multiply")
    assert carry == (("R8", "P2"), ("R4", "R5"), "alu")
    assert load == (("R12", "R13", "R14", "R15"), ("R1", "UR4"), "shared")
    assert store.writes == () and set(store.reads) == {"UR6", "UR7", "R2", "R3", "R12", "R13"}
    assert compare == (("P3",), ("R5", "R4"), "alu")
    assert predicated == (("R1",), ("P3", "R1", "R2"), "float32")


def loop(*lines):
    (function,) = sass.parse(listing(*lines))
    return function.instructions


def test_a_schedule():
    """Sums that wait for each other: one every four cycles, whoever waits with them. 1 % for the ends."""
    chain = loop("FADD R1, R1, R2")
    for warps, cycles in ((1, 4), (3, 4), (4, 4), (8, 8)):
        found = schedule.cycles_per_slot(chain, warps, turns=400)
        assert found == pytest.approx(cycles, rel=0.01)
    two = loop("FADD R1, R1, R2", "FADD R3, R3, R2")
    assert schedule.cycles_per_slot(two, 1, turns=400) == pytest.approx(2, rel=0.01)
    # Special functions that nobody waits for: the pipe takes one in eight cycles.
    special = loop("MUFU.LG2 R1, R2")
    assert schedule.cycles_per_slot(special, 1, turns=400) == pytest.approx(8, rel=0.01)
    assert schedule.cycles_per_slot(special, 2, turns=400) == pytest.approx(16, rel=0.01)


needs_tools = pytest.mark.skipif(
    shutil.which("nvcc") is None or not all(map(sass.find_tool, ("nvdisasm", "cuobjdump"))),
    reason="needs nvcc, nvdisasm and cuobjdump (from the CUDA toolkit or Triton's package)",
)


@needs_tools
def test_the_rule_for_few_warps_is_that_of_the_compiled_loops():
    kernels = calls.kernels_of(ROOT, "sm_90")
    for kernel in kernels.values():
        assert 32 <= kernel.registers <= 102 and kernel.shared < 2048
        # The kernel that reads a table has many rows, and so as many warps as there is room for.
        for warps in (5,) if "table" in kernel.name else range(1, 6):
            cycles = schedule.cycles_per_slot(kernel.path.noise[0].way, warps)
            assert duration.slot_cycles(warps) == pytest.approx(cycles, rel=0.2)
    # A block's sums are cleared and added up at the start and at the end: the more, the more rows it has.
    starts = [kernels["backward"].path.start_slots(64, lanes, 128) for lanes in (1, 4, 16)]
    assert starts == sorted(starts, reverse=True)
    assert 100 < kernels["forward"].path.start_slots(64, 1, 128) < 1000


@needs_tools
@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_the_geometry_chooses_what_the_model_finds_fastest(pass_, monkeypatch):
    """Of all numbers of threads that can share a row, to within a few percent: its own formula is shorter."""
    kernel = calls.kernels_of(ROOT, "sm_90")[pass_]
    geometry = launches.geometry_of(ROOT)
    choose = geometry.choose_lanes

    def seconds(rows, codes, lanes=None):
        monkeypatch.setattr(geometry, "choose_lanes", choose if lanes is None else lambda *_: lanes)
        launch = launches.launch_of(kernel.name, H100, rows, codes)
        taken = calls.kernel_seconds(kernel, H100, rows, codes, launch, bytes_moved=0)
        return taken if launch.shared <= geometry.SHARED else math.inf

    for rows in (3072, 65_536, 2**20):
        for codes in (16, 64, 256):
            every = [seconds(rows, codes, lanes) for lanes in (1, 2, 4, 8, 16, 32) if lanes <= codes // 4]
            assert seconds(rows, codes) <= 1.05 * min(every), (rows, codes)


@needs_tools
def test_the_table(tmp_path, capsys):
    file = tmp_path / "table.csv"
    arguments = ["--table", "--gpu", "H100", "H200", "--markdown", "--csv", str(file)]
    assert program.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| H200 | 65,536 | 64 |" in printed and "1.3 us" in printed and "228 KB" in printed
    lines = file.read_text().splitlines()
    assert len(lines) == 1 + 2 * 9 and lines[0].endswith("forward,backward,both,kind")
    slower = [*arguments, "--reduce", "32,1,1,1"]
    assert program.main(slower) == 0
    assert capsys.readouterr().out != printed
    assert program.main([*arguments, "--tree", str(tmp_path)]) == 2
    assert "nvcc failed" in capsys.readouterr().err
