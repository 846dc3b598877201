"""What is published about the GPUs of the cost model: sizes, clocks, rates of instructions, and the textbook.

Sources:
[guide]  CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions": results per clock cycle
         per multiprocessor. One instruction of a warp is 32 results.
[nsight] Nsight Compute documentation, "Pipelines": FMA does float32 additions and multiplications and all
         integer multiplications, ALU integer additions, logic, shifts, comparisons and selections, XU the
         special functions and conversions. From 8.6 on FMA is two halves; integer multiplications have one.
[sheet]  NVIDIA's data sheets and architecture white papers of A100, H100 and B200.
"""

from __future__ import annotations

from dataclasses import dataclass

# Warp schedulers of a multiprocessor; each issues one instruction of one warp a clock. [guide]
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
    """One GPU: clock in Hz, DRAM bandwidth in bytes per second; `source` says where from."""

    name: str
    capability: str
    multiprocessors: int
    clock: float
    bandwidth: float
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
            "A100 SXM 80 GB: 108 multiprocessors, boost clock 1,410 MHz, 2,039 GB/s [sheet]",
        ),
        Gpu(
            "H100",
            "9.0",
            132,
            1.980e9,
            3.35e12,
            "H100 SXM: 132 multiprocessors, 3.35 TB/s; 1,980 MHz is what its 67 float32 TFLOPS take: "
            "132 x 128 x 2 x 1.98 GHz [sheet]",
        ),
        Gpu(
            "B200",
            "10.0",
            148,
            1.965e9,
            8.0e12,
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


# What `textbook` of _contenders.py runs, as PyTorch dispatches it. Views, and arrays of size N or K alone,
# are free here. A softmax reads its input once; exponential_ overwrites without reading.
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
