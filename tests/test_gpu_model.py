"""The cost model of the GPU kernels: paths and their cost, the formulas, a compiled kernel, the program."""

import os
import shutil
import subprocess
import sys

import _contenders
import pytest
import torch
from listings import listing, philox_lines
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fqvae_kernels.backends._cuda import geometry
from gpu_model import cost, flow, launch, program, sass, specs


def noise_kernel(logs: int = 8, rounds: int = 10) -> tuple[str, ...]:
    """A pass of 16 codes with a remainder of 1, either skipped by a branch, and a loop with noise."""
    return (
        "S2R R0, SR_TID.X",
        "@P5 BRA `(.L_x_2)",
        ".L_x_0:",
        *["LDS.128 R4, [UR5]"] * 4,
        *["FADD R5, R16, -R8", "FSETP.GEU.AND P2, PT, |R5|, R4, PT"] * 16,
        "@!P0 BRA `(.L_x_0)",
        "@P4 BRA `(.L_x_2)",
        ".L_x_1:",
        "LDS R4, [UR5]",
        "FSETP.GEU.AND P2, PT, |R5|, R4, PT",
        "@!P0 BRA `(.L_x_1)",
        ".L_x_2:",
        "MOV R2, R3",
        ".L_x_3:",
        *philox_lines(rounds),
        *["MUFU.LG2 R1, R2"] * logs,
        "LDS.128 R4, [UR5]",
        "@!P0 BRA `(.L_x_3)",
        "STG.E [R2.64], R5",
        "EXIT",
    )


def test_paths_and_their_cost():
    (function,) = sass.parse(listing(*noise_kernel()))
    (path,) = cost.paths_of(function)
    assert [[flow.is_scan(loop) for loop in group] for group in path.passes] == [[16, 1]]
    assert path.description == "scan 0x20 (16 codes) then noise 0x2c0 (4 pairs)"
    work = path.work(codes=66, lanes=1)
    # Outside of the loops: S2R, two branches and EXIT, MOV, STG.
    assert work.once == {"other": 1, "control": 3, "alu": 1, "global": 1}
    assert work.least_once == 5 and not work.start
    # 17 turns of 30 with noise; 4 turns of 37 over 16 codes and 2 turns of 3 over the rest; 6 outside.
    assert work.noise.total() == 17 * 30
    assert work.scan.total() == 4 * 37 + 2 * 3
    assert work.slots == (17 * 30 + 4 * 37 + 2 * 3 + 6) / 66
    assert work.shared_words == 17 * 4 + 4 * 16 + 2 * 1
    # Eight threads a row: nine codes each, three turns with noise and nine over single codes, all of them.
    shared = path.work(codes=66, lanes=8)
    assert shared.noise.total() == 8 * 3 * 30
    assert shared.scan.total() == 8 * 9 * 3
    assert shared.once.total() == 8 * 6


def test_what_is_not_clear_is_refused():
    (function,) = sass.parse(listing(*noise_kernel(logs=6)))
    with pytest.raises(sass.CodeError, match="4 pairs a turn, but 6 logarithms"):
        cost.paths_of(function)[0].work(64, 1)
    (function,) = sass.parse(listing(*noise_kernel(rounds=7)))
    with pytest.raises(sass.CodeError, match="7 and 7 multiplications"):
        cost.paths_of(function)[0].work(64, 1)


def test_alternative_loops_are_separate_paths():
    body = [*philox_lines(), "MUFU.LG2 R1, R2", "MUFU.LG2 R1, R2", "MUFU.LG2 R1, R2", "MUFU.LG2 R1, R2"]
    (function,) = sass.parse(
        listing(
            "@P5 BRA `(.L_x_1)",
            ".L_x_0:",
            *body,
            "@!P0 BRA `(.L_x_0)",
            "BRA `(.L_x_2)",
            ".L_x_1:",
            *body,
            "MUFU.EX2 R1, R2",
            "@!P0 BRA `(.L_x_1)",
            ".L_x_2:",
            "EXIT",
        )
    )
    paths = cost.paths_of(function)
    assert [[loop.slots for loop in path.noise] for path in paths] == [[25], [26]]
    assert [path.work(64, 1).once.total() for path in paths] == [3, 2]


def test_a_loop_over_rows():
    """What is in it is a row's, what is before it a thread's start; a row meets no barrier if it can."""
    (function,) = sass.parse(
        listing(
            "S2R R0, SR_TID.X",
            "BAR.SYNC 0x0",
            ".L_x_0:",
            "LDG.E R1, [R2.64]",
            "@P0 BRA `(.L_x_1)",
            "STS [R1], R2",
            "BAR.SYNC 0x0",
            ".L_x_1:",
            *philox_lines(8),
            "@P1 BRA `(.L_x_1)",
            ".L_x_2:",
            "SHFL.BFLY PT, R5, R4, 0x1, 0x1f",
            "FADD R4, R4, R5",
            "@P2 BRA `(.L_x_2)",
            "STG.E [R2.64], R5",
            "@P3 BRA `(.L_x_0)",
            "EXIT",
        )
    )
    (path,) = cost.paths_of(function)
    work = path.work(codes=64, lanes=1)
    assert work.noise.total() == 16 * 17
    # Its own load, the branch around the barrier, store, and the loop's branch; no thread to meet.
    assert work.once == {"global": 2, "control": 2} and work.least_once == 4
    assert work.start == {"other": 1, "control": 2}
    shared = path.work(codes=64, lanes=8, rows_a_thread=4)
    assert shared.once == {"global": 16, "control": 40, "shuffle": 24, "float32": 24}
    assert shared.start.total() == 3 * 8 / 4


def test_code_without_loops():
    (function,) = sass.parse(listing(*philox_lines(), *philox_lines(), "STG.E [R2.64], R5", "EXIT"))
    (path,) = cost.paths_of(function)
    assert path.straight_pairs == 8
    assert path.work(codes=64, lanes=1).slots == 42 / 8


def test_bounds_and_times():
    """Against numbers worked out by hand: 64 codes, 32 slots a code, of which 5 are special functions."""
    work = cost.Work(
        codes=64,
        noise=cost.Counter({"float32": 64 * 16, "special": 64 * 5}),
        scan=cost.Counter({"integer multiply": 64 * 4}),
        once=cost.Counter({"alu": 64 * 7}),
        least_once=0,
        start=cost.Counter(),
        shared_words=64,
    )
    assert work.slots == 32 and work.loop_slots == 25
    a100, h100 = specs.GPUS["A100"], specs.GPUS["H100"]
    bounds = work.bounds(h100.rates)
    assert bounds["issue"] == 32
    assert bounds["special"] == 5 * 8
    assert bounds["float32 and integer multiply"] == 20
    assert bounds["integer multiply"] == 8
    assert bounds["alu"] == 14
    assert bounds["shared memory"] == 4
    assert work.bounds(a100.rates)["float32 and integer multiply"] == 40
    # 2^20 rows are 32,768 warps on 528 schedulers: 63 on the busiest. 63 * 64 * 40 / 1.98e9.
    result = cost.model(work, h100, 2**20, 1, 36)
    assert result.bound == "special"
    assert result.seconds == result.compute_seconds == pytest.approx(81.4545e-6, rel=1e-5)
    assert result.memory_seconds == pytest.approx(2**20 * 36 / 3.35e12)
    # Eight threads a row, 3,072 rows: 768 warps, two on the busiest scheduler, an eighth of a row each.
    assert cost.model(work, h100, 3072, 8, 36).seconds == pytest.approx(2 * 8 * 40 / 1.98e9)
    assert cost.model(work, h100, 2**20, 1, 1e4).bound == "DRAM"
    # One row more than 528 warps hold makes a second round of the busiest scheduler.
    one, two = (cost.model(work, h100, 528 * 32 + more, 1, 36).compute_seconds for more in (0, 1))
    assert two == pytest.approx(2 * one)
    # Without whole warps: 2^26 pairs of 40 slots, 128 of them a clock on 132 multiprocessors.
    assert cost.least_seconds(work, h100, 2**20, 36) == pytest.approx(2**26 * 40 / (128 * 132 * 1.98e9))


def test_traffic():
    assert specs.bytes_per_row("forward_z", 64) == 4 + 4 + 8 + 4 + 20
    assert specs.bytes_per_row("backward_logits", 64) == 2 * 256 + 8 + 20 + 8
    assert specs.kind_of("fqvae::backward_logits<float>") == "backward_logits"
    h100 = specs.GPUS["H100"]
    floor = specs.textbook_floor(specs.TEXTBOOK_FORWARD, 2**20, 64, h100)
    assert floor == pytest.approx(29 * 4 * 2**26 / 3.35e12)


def test_launches_are_those_of_the_cuda_backend():
    """One thread a row where rows are many, several where they are few, all as the geometry itself says."""
    h100 = specs.GPUS["H100"]
    for kernel, rows in (("forward_z_float", 2**20), ("forward_z_float", 3072), ("backward_z_float", 65536)):
        device = geometry.Device(h100.multiprocessors, h100.shared_memory)
        place = getattr(geometry, kernel.split("_")[0])(rows, 64, 1, device, False, 4)
        threads = place.blocks * geometry.THREADS
        assert launch.launch_of(kernel, h100, rows, 64) == (
            place.lanes,
            rows * place.lanes / threads,
            place.blocks,
            place.shared,
        )
    assert launch.launch_of("forward_z_float", h100, 2**20, 64).lanes == 1
    assert launch.launch_of("forward_z_float", h100, 3072, 64).lanes > 1
    assert launch.launch_of("backward_logits_float", h100, 2**20, 64).lanes == 16
    assert launch.launch_of("something_else", h100, 3072, 64) == (1, 1.0, 24, 0)
    assert launch.tabulates(h100, 2**20, 64) == 132 and launch.tabulates(h100, 65536, 64) == 0
    assert launch.launch_of("forward_z_table_float", h100, 2**20, 256).lanes == 1


class Traffic(TorchDispatchMode):
    """Notes each operation with how many arrays of N x K it reads and writes, views left out."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.operations = 4 * size, []

    def storages(self, tree):
        """Addresses of the large arrays; an expanded small one is small."""
        tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
        storages = [t.untyped_storage() for t in tensors if t.dtype == torch.float32]
        return [s.data_ptr() for s in storages if s.nbytes() == self.size]

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        result = operator(*arguments, **(options or {}))
        name = operator._schema.name.removeprefix("aten::")
        reads = self.storages((arguments, options))
        in_place = name.endswith("_")
        writes = [s for s in self.storages(result) if in_place or s not in reads]
        if name != "empty_like" and (writes or not self.storages(result)) and (reads or writes):
            self.operations.append((name, 0 if in_place else len(reads), len(writes)))
        return result


def test_the_textbooks_operations_are_those_that_run():
    rows, codes = 37, 8
    z, codebook = torch.randn(rows, requires_grad=True), torch.randn(codes, requires_grad=True)
    with Traffic(rows * codes) as forward:
        quantized, _, kl = _contenders.textbook(z, codebook, 0.7)
    with Traffic(rows * codes) as backward:
        torch.autograd.grad([quantized, kl], [z, codebook], [torch.ones(rows), torch.ones(rows)])
    for traffic, listed in (
        (forward, specs.TEXTBOOK_FORWARD),
        (backward, specs.TEXTBOOK_BACKWARD),
    ):
        assert traffic.operations == [(o.name, o.reads, o.writes) for o in listed]


SOURCE = """
#include <cstdint>
extern "C" __global__ void forward_test(const float* book, float* out, int codes, uint32_t key,
                                        uint32_t row) {
  extern __shared__ float shared[];
  for (int k = threadIdx.x; k < codes; k += blockDim.x) shared[k] = book[k];
  __syncthreads();
  float sum = 0.f;
#pragma unroll UNROLL
  for (int k = 0; k < codes; k += 4) {
    uint32_t x[4] = {uint32_t(k) >> 2, 0u, row + threadIdx.x, 0u};
    uint32_t k0 = key, k1 = ~key;
#pragma unroll
    for (int round = 0; round < 10; round++) {
      uint32_t h0 = __umulhi(0xD2511F53u, x[0]), l0 = 0xD2511F53u * x[0];
      uint32_t h1 = __umulhi(0xCD9E8D57u, x[2]), l1 = 0xCD9E8D57u * x[2];
      x[0] = h1 ^ x[1] ^ k0, x[1] = l1, x[2] = h0 ^ x[3] ^ k1, x[3] = l0;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    float4 m = *reinterpret_cast<const float4*>(shared + k);
    float c[4] = {m.x, m.y, m.z, m.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      float u = __uint_as_float(x[j]), e;
      asm volatile("lg2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(u));
      asm volatile("lg2.approx.ftz.f32 %0, %1;" : "=f"(u) : "f"(e));
      asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(u));
      sum = fmaf(e, c[j], sum);
    }
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
"""
needs_tools = pytest.mark.skipif(
    shutil.which("nvcc") is None or sass.find_tool("nvdisasm") is None,
    reason="needs nvcc, and nvdisasm (from the CUDA toolkit or Triton's package)",
)


@needs_tools
@pytest.mark.parametrize("unroll", [1, 2])
def test_a_compiled_kernel(tmp_path, unroll):
    """A pair, as its source says: three special functions, one fused multiplication, a quarter of a load."""
    source = tmp_path / "kernel.cu"
    source.write_text(SOURCE.replace("UNROLL", str(unroll)))
    cubin = sass.compile_cubin(source, "sm_90", tmp_path, tmp_path)
    (function,) = sass.parse(sass.disassemble(cubin))
    assert function.architecture == "sm_90"
    path = next(path for path in cost.paths_of(function) if len(path.noise) == 1)
    (loop,) = path.noise
    pairs = cost.pairs_of(loop)
    assert pairs == 4 * unroll
    assert loop.turn["special"] == 3 * pairs
    assert loop.turn["float32"] == pairs
    assert loop.turn["shared"] == unroll and flow.shared_words(loop.instructions) == pairs
    assert loop.turn["control"] == 1 and not loop.turn["global"]
    # Ten rounds of two wide multiplications, less those that depend on the row alone or are uniform.
    assert 4 * pairs < loop.turn["integer multiply"] + loop.turn["uniform"] <= 6 * pairs + 8
    work = path.work(64, 1)
    assert work.noise["special"] == 3 * 64 and work.noise["float32"] == 64
    assert 0 < work.least_once <= work.once.total() and not work.start


@needs_tools
@pytest.mark.skipif(sass.find_tool("cuobjdump") is None, reason="needs cuobjdump")
def test_code_in_a_library(tmp_path):
    """What holds several architectures gives the one that is asked for, and says when it has none."""
    source, library = tmp_path / "kernel.cu", tmp_path / "kernel.fatbin"
    source.write_text(SOURCE.replace("UNROLL", "1"))
    architectures = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (80, 90)]
    subprocess.run(["nvcc", "-fatbin", *architectures, "-o", str(library), str(source)], check=True)
    (cubin,) = sass.cubins_of(library, ("sm_80",), tmp_path)
    (function,) = sass.parse(sass.disassemble(cubin))
    assert (function.name, function.architecture) == ("forward_test", "sm_80")
    with pytest.raises(sass.CodeError, match="holds no code for sm_100"):
        sass.cubins_of(library, ("sm_100",), tmp_path)


@needs_tools
def test_the_program(tmp_path, capsys):
    source, table = tmp_path / "kernel.cu", tmp_path / "table.csv"
    source.write_text(SOURCE.replace("UNROLL", "1"))
    assert program.main(["--source", str(source), "--gpu", "H100", "--markdown", "--csv", str(table)]) == 0
    printed = capsys.readouterr().out
    assert "| forward_test | sm_90 | 1 | noise" in printed and "modelled" in printed
    for source_of_a_figure in ("3.35 TB/s", "special functions 16", "29 in all", "quantized 4"):
        assert source_of_a_figure in printed
    assert table.read_text().splitlines()[1].startswith("forward_test,sm_90,1,")
    assert program.main(["--source", str(source), "--gpu", "H100", "--bars", "forward", "backward"]) == 2
    assert "'backward', which must be one path of one kernel" in capsys.readouterr().err
    assert program.main(["--source", str(source), "--kernel", "nothing", "--gpu", "H100"]) == 2
    assert "matches 'nothing'" in capsys.readouterr().err


def test_a_missing_tool_or_file_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sass.importlib.util, "find_spec", lambda name: None)
    source = tmp_path / "kernel.cu"
    source.write_text("")
    assert program.main(["--source", str(source)]) == 2
    assert "nvcc is not on the PATH: give --code" in capsys.readouterr().err
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(b"")
    assert program.main(["--code", str(cubin)]) == 2
    assert "nvdisasm was not found" in capsys.readouterr().err
    assert program.main(["--code", str(tmp_path / "absent.cubin")]) == 2
    assert "absent.cubin does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--rows", "0"], ["--codes", "-3"], ["--lanes", "64"], ["--kernel", "("]]
)
def test_bad_arguments_are_named(arguments, capsys):
    with pytest.raises(SystemExit):
        program.parse_arguments(arguments)
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (["tools/gpu_model", "--help"], "."),
        (["-m", "gpu_model", "--help"], "tools"),
        (["-c", "from gpu_model import bound, schedule; print('--table')"], "tools"),
    ],
)
def test_it_needs_the_standard_library_alone(command, folder):
    """It models on a machine that has a compiler and no PyTorch: -S leaves all installed packages out."""
    without_path = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", *command]
    done = subprocess.run(command, cwd=launch.ROOT / folder, env=without_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--table" in done.stdout
