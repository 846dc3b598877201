"""What is published about the GPUs of the cost model: sizes, clocks, rates of instructions, and the textbook.

Sources:
[guide]  CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions": results per clock cycle
         per multiprocessor. One instruction of a warp is 32 results.
[nsight] Nsight Compute documentation, "Pipelines": FMA does float32 additions and multiplications and all
         integer multiplications, ALU integer additions, logic, shifts, comparisons and selections, XU the
         special functions and conversions. From 8.6 on FMA is two halves; integer multiplications have one.
[sheet]  NVIDIA's data sheets and architecture white papers of A100, H100, H200 and B200.
[h100]   Spector et al., "Look Ma, No Bubbles", Hazy Research, 2025: a kernel in a CUDA graph costs 1.3 us on
         an H100 besides its work.
[mpk]    "Mirage Persistent Kernel", arXiv 2512.22219: 0.8 us a kernel in a CUDA graph on a B200.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Warp schedulers of a multiprocessor; each issues one instruction of one of its own warps a clock. [guide]
SCHEDULERS = 4
WARP = 32


@dataclass(frozen=True)
class Rates:
    """Results per clock per multiprocessor of a compute capability; `shared_bytes`: bytes per clock."""

    float32: int
    integer_multiply: int
    alu: int
    special: int
    float64: int
    shuffle: int
    load_store: int
    shared_bytes: int


# [guide]: the rows of 32-bit floating-point addition, 32-bit integer multiplication, comparison (as integer
# addition, logic and shifts), base 2 logarithm and exponential, 64-bit floating-point addition, warp shuffle;
# shared memory has 32 banks of 4 bytes a clock. [sheet]: 32 load/store units.
RATES = {
    "8.0": Rates(64, 64, 64, 16, 32, 32, 32, 128),
    "9.0": Rates(128, 64, 64, 16, 64, 32, 32, 128),
    "10.0": Rates(128, 64, 64, 16, 64, 32, 32, 128),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU: clock in Hz, DRAM bandwidth in bytes per second, shared memory in bytes of a multiprocessor.

    graph_gap: seconds that a kernel of a CUDA graph costs besides its work [h100] [mpk]. `source` says where
    all else is from.
    """

    name: str
    capability: str
    multiprocessors: int
    clock: float
    bandwidth: float
    shared_memory: int
    graph_gap: float
    source: str

    @property
    def architecture(self) -> str:
        """The compiler's name for it."""
        return "sm_" + self.capability.replace(".", "")

    @property
    def rates(self) -> Rates:
        return RATES[self.capability]


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            "A100",
            "8.0",
            108,
            1.410e9,
            2.039e12,
            164 * 1024,
            1.3e-6,
            "A100 SXM 80 GB: 108 multiprocessors, boost clock 1,410 MHz, 2,039 GB/s [sheet]; the gap of an "
            "H100 is assumed",
        ),
        Gpu(
            "H100",
            "9.0",
            132,
            1.980e9,
            3.35e12,
            228 * 1024,
            1.3e-6,
            "H100 SXM: 132 multiprocessors, 3.35 TB/s; 1,980 MHz is what its 67 float32 TFLOPS take: "
            "132 x 128 x 2 x 1.98 GHz [sheet]",
        ),
        Gpu(
            "H200",
            "9.0",
            132,
            1.980e9,
            4.8e12,
            228 * 1024,
            1.3e-6,
            "H200 SXM: 132 multiprocessors and the clock of an H100, as the same 67 float32 TFLOPS say; 4.8 "
            "TB/s [sheet]; the gap of an H100 is assumed",
        ),
        Gpu(
            "B200",
            "10.0",
            148,
            1.965e9,
            8.0e12,
            228 * 1024,
            0.8e-6,
            "B200 SXM: 148 multiprocessors, 8 TB/s; 1,965 MHz is near what its 37 float64 TFLOPS take: "
            "148 x 64 x 2 x 1.95 GHz [sheet]",
        ),
    )
}


@dataclass(frozen=True)
class Operation:
    """One PyTorch operation and how many arrays of N x K float32 it reads and writes."""

    name: str
    reads: int
    writes: int


# What `textbook` of benchmarks/_contenders.py runs, as PyTorch dispatches it. Views, and arrays of size N or
# K alone, are free here. A softmax reads its input once; exponential_ overwrites without reading.
TEXTBOOK_FORWARD = (
    Operation("sub", 0, 1),
    Operation("pow", 1, 1),
    Operation("neg", 1, 1),
    Operation("_log_softmax", 1, 1),
    Operation("exp", 1, 1),
    Operation("add", 1, 1),
    Operation("mul", 2, 1),
    Operation("sum", 1, 0),
    Operation("exponential_", 0, 1),
    Operation("log", 1, 1),
    Operation("neg", 1, 1),
    Operation("add", 2, 1),
    Operation("div", 1, 1),
    Operation("_softmax", 1, 1),
    Operation("mv", 1, 0),
    Operation("argmax", 1, 0),
)
TEXTBOOK_BACKWARD = (
    Operation("mul", 0, 1),
    Operation("mv", 1, 0),
    Operation("_softmax_backward_data", 2, 1),
    Operation("div", 1, 1),
    Operation("mul", 1, 1),
    Operation("mul", 1, 1),
    Operation("mul", 2, 1),
    Operation("add", 2, 1),
    Operation("_log_softmax_backward_data", 2, 1),
    Operation("add", 2, 1),
    Operation("neg", 1, 1),
    Operation("pow", 1, 1),
    Operation("mul", 1, 1),
    Operation("mul", 2, 1),
    Operation("neg", 1, 1),
    Operation("sum", 1, 0),
    Operation("sum", 1, 0),
)


def arrays_moved(operations: tuple[Operation, ...]) -> int:
    """How many arrays of N x K go through DRAM if every operation reads and writes each of its own once."""
    return sum(operation.reads + operation.writes for operation in operations)


def textbook_floor(operations: tuple[Operation, ...], rows: int, codes: int, gpu: Gpu) -> float:
    """Seconds that the DRAM alone needs for these operations in float32."""
    return arrays_moved(operations) * 4.0 * rows * codes / gpu.bandwidth


# What a row of float32 reads and writes once, in bytes. stats: what the forward keeps for the backward pass.
BYTES = {
    "forward_z": "z 4, quantized 4, indices 8, kl 4, stats 20",
    "forward_logits": "logits 4 K, quantized 4, indices 8, kl 4, stats 20",
    "backward_z": "z 4, indices 8, stats 20, gradients of quantized 4, of kl 4, of z 4",
    "backward_logits": "logits 4 K, indices 8, stats 20, gradients of quantized 4, of kl 4, of logits 4 K",
}


def kind_of(kernel: str) -> str:
    """The key of `BYTES` for a kernel, by its name: what does not say otherwise is a forward pass on z."""
    direction = "backward" if "backward" in kernel else "forward"
    return f"{direction}_{'logits' if 'logits' in kernel else 'z'}"


def bytes_per_row(kind: str, codes: int) -> int:
    """DRAM bytes of one row, by `BYTES`."""
    sizes = re.findall(r"(\d+)( K)?", BYTES[kind])
    return sum(int(size) * (codes if times else 1) for size, times in sizes)


def textbook_operations(kind: str) -> tuple[Operation, ...]:
    return TEXTBOOK_BACKWARD if kind.startswith("backward") else TEXTBOOK_FORWARD
