"""From the loops of a kernel to what a row costs: which loops run together, and what bounds them on a GPU."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

from .flow import Flow, Loop, is_scan, philox_blocks, philox_multiplications, shared_words
from .sass import CodeError, Function
from .specs import SCHEDULERS, WARP, Gpu, Rates

WORDS = 4  # of one Philox block, each the noise of one pair


def pairs_of(loop: Loop) -> int:
    """(row, code) pairs that one turn of a loop with noise handles: four for each Philox block in it.

    Raises CodeError if its logarithms do not agree: each pair takes none, one or two of the hardware's.
    """
    pairs = WORDS * philox_blocks(loop.philox_multiplications)
    logs = loop.special("LG2")
    if logs % pairs or logs > 2 * pairs:
        raise CodeError(
            f"the loop at {loop.begin:#x} has Philox multiplications for {pairs} pairs a turn, but {logs} "
            "logarithms: how many pairs it handles is not clear"
        )
    return pairs


@dataclass(frozen=True)
class Path:
    """Loops with noise that run one after another in one call, and what runs with them.

    passes: those without noise, each a loop with its remainder loops. row_loop: the loop over rows around all
    of them; None in a kernel where a thread has one row. avoiding: blocks that this path leaves out.
    """

    number: int
    flow: Flow
    noise: tuple[Loop, ...]
    passes: tuple[tuple[Loop, ...], ...] = ()
    row_loop: Loop | None = None
    avoiding: frozenset[int] = frozenset()
    straight_pairs: int = 0

    @property
    def description(self) -> str:
        if not self.noise:
            return f"no loop: {self.straight_pairs} pairs a thread in straight code"
        scans = [f"{loop.begin:#x} ({is_scan(loop)} codes)" for group in self.passes for loop in group[:1]]
        noise = [f"{loop.begin:#x} ({pairs_of(loop)} pairs)" for loop in self.noise]
        return " then ".join(["scan " + scan for scan in scans] + ["noise " + loop for loop in noise])

    def work(self, codes: int, lanes: int, rows_a_thread: float = 1.0) -> Work:
        """What a row of so many codes costs, shared by so many lanes (threads), each with so many rows."""
        row, start = self._outside(lanes, 1)
        least, _ = self._outside(lanes, -1)
        if not self.noise:
            # Every pair of the straight code counts alike, whatever the number of codes.
            share = codes / self.straight_pairs
            code = [i for number in self.flow.order for i in self.flow.blocks[number].instructions]
            nothing: Counter[str] = Counter()
            return Work(codes, _times(row, share), nothing, nothing, 0.0, nothing, shared_words(code) * share)
        own = math.ceil(codes / lanes)
        noise: Counter[str] = Counter()
        scan: Counter[str] = Counter()
        words = 0.0
        for loop in self.noise:
            turns = lanes * math.ceil(own / pairs_of(loop))
            noise += _times(loop.turn, turns)
            words += turns * shared_words(loop.way)
        for group in self.passes:
            for loop, turns in _turns(group, own):
                scan += _times(loop.turn, lanes * turns)
                words += lanes * turns * shared_words(loop.way)
        begin = _times(start, lanes / rows_a_thread)
        return Work(codes, noise, scan, _times(row, lanes), lanes * least.total(), begin, words)

    def start_slots(self, codes: int, lanes: int, threads: int) -> float:
        """Instructions of a thread before its first row and after its last, in a block of so many threads.

        Loops there go through the codes, `threads` at a time; those of csrc/cuda/codebook_sums.h go through
        the block's sums, of which there is one for each code and each row that the block works on at a time.
        """
        if self.row_loop is None:
            return 0.0
        rows = threads // lanes
        tile = WORDS * rows + (WARP // lanes if lanes > 1 else 0)
        times: dict[int, float] = {}
        for loop in self.flow.loops:
            if loop.blocks & self.row_loop.blocks:
                continue
            turns = math.ceil(codes / threads)
            if loop.innermost and loop.count("LDS") and loop.count("STS"):
                turns = math.ceil(rows / loop.count("LDS"))
            elif loop.innermost and any(i.opcode == "STS" and i.operands.endswith("RZ") for i in loop.way):
                turns = math.ceil(math.ceil(codes / WORDS) * tile / threads)
            for number in loop.blocks:
                times[number] = times.get(number, 1.0) * turns
        times.update(dict.fromkeys(self.row_loop.blocks, 0.0))
        way = self.flow.through(0, [self.row_loop.head], self.flow.exits, (), times)
        return float(self.flow.counts(_found(way), times).total())

    def _outside(self, lanes: int, sign: int) -> tuple[Counter[str], Counter[str]]:
        """Instructions of a thread outside of the loops over codes: for each row, and once at the start."""
        heads = [loop.head for loop in self.noise]
        inside = [*self.noise, *(loop for group in self.passes for loop in group)]
        times: dict[int, float] = {}
        for loop in self.flow.loops:
            if loop.innermost and loop.count("SHFL"):
                # Threads that share a row meet in as many steps as it takes to double up to their number.
                times.update(dict.fromkeys(loop.blocks, math.log2(lanes)))
        times.update({number: 0.0 for loop in inside for number in loop.blocks})
        if self.row_loop is None:
            way = self.flow.through(0, heads, self.flow.exits, self.avoiding, times, sign)
            return self.flow.counts(_found(way), times), Counter()
        within = self.row_loop.blocks
        elsewhere = self.avoiding | (frozenset(self.flow.order) - within)
        # A row meets barriers only where shared memory does not hold the codebook.
        barriers = frozenset(n for n in within if self.flow.has_barrier(n))
        ends = self.flow.latches(self.row_loop.head)
        way = None
        for avoiding in (elsewhere | barriers, elsewhere):
            way = way or self.flow.through(self.row_loop.head, heads, ends, avoiding, times, sign)
        free = dict.fromkeys(within, 0.0)
        start = self.flow.through(0, [self.row_loop.head], self.flow.exits, (), free, sign)
        return self.flow.counts(_found(way), times), self.flow.counts(_found(start), free)


@dataclass(frozen=True)
class Work:
    """Instructions a row by pipe: in loops with noise, in passes without, and outside of both.

    least_once: slots of the shortest way outside. start: a row's share of what a thread does before its first
    row. shared_words: of 4 bytes, through shared memory.
    """

    codes: int
    noise: Counter[str]
    scan: Counter[str]
    once: Counter[str]
    least_once: float
    start: Counter[str]
    shared_words: float

    @property
    def loop_slots(self) -> float:
        """Issue slots per (row, code) in the loops over codes alone."""
        return (self.noise + self.scan).total() / self.codes

    @property
    def total(self) -> Counter[str]:
        return self.noise + self.scan + self.once + self.start

    @property
    def slots(self) -> float:
        """Issue slots per (row, code)."""
        return self.total.total() / self.codes

    def bounds(self, rates: Rates) -> dict[str, float]:
        """Time per (row, code) by what bounds it, in issue slots of a multiprocessor, four a clock."""
        total = self.total
        lanes_a_clock = SCHEDULERS * WARP
        # Integer multiplications share the pipe with float32, and where it has two halves they have one.
        multiplications = total["integer multiply"]
        busy = {
            "issue": total.total(),
            "float32 and integer multiply": (total["float32"] + multiplications)
            * lanes_a_clock
            / rates.float32,
            "integer multiply": multiplications * lanes_a_clock / rates.integer_multiply,
            "alu": total["alu"] * lanes_a_clock / rates.alu,
            "special": total["special"] * lanes_a_clock / rates.special,
            "float64": total["float64"] * lanes_a_clock / rates.float64,
            "shuffle": total["shuffle"] * lanes_a_clock / rates.shuffle,
            "load and store": (total["shared"] + total["global"]) * lanes_a_clock / rates.load_store,
            "shared memory": self.shared_words * 4 * lanes_a_clock / rates.shared_bytes,
        }
        return {name: value / self.codes for name, value in busy.items()}


@dataclass(frozen=True)
class Modelled:
    """A modelled time in seconds: the larger of computing and DRAM, and which resource is the bound."""

    seconds: float
    bound: str
    compute_seconds: float
    memory_seconds: float


def model(work: Work, gpu: Gpu, rows: int, lanes: int, bytes_per_row: float) -> Modelled:
    """The time that so many rows take at least. Warps are whole, and spread evenly over the schedulers."""
    bounds = work.bounds(gpu.rates)
    bound = max(bounds, key=bounds.__getitem__)
    warps = math.ceil(rows * lanes / WARP)
    deepest = math.ceil(warps / (SCHEDULERS * gpu.multiprocessors))
    compute = deepest * bounds[bound] * work.codes / lanes / gpu.clock
    memory = rows * bytes_per_row / gpu.bandwidth
    return Modelled(max(compute, memory), bound if compute >= memory else "DRAM", compute, memory)


def least_seconds(work: Work, gpu: Gpu, rows: int, bytes_per_row: float) -> float:
    """The same without whole warps: rows spread evenly over the GPU, however many threads share one."""
    slots = max(work.bounds(gpu.rates).values())
    compute = rows * work.codes * slots / (SCHEDULERS * WARP * gpu.multiprocessors * gpu.clock)
    return max(compute, rows * bytes_per_row / gpu.bandwidth)


def paths_of(function: Function) -> list[Path]:
    """Every set of loops with noise that one call may run, with the passes before and after them.

    Empty for a kernel without noise. Raises CodeError where the code is not understood.
    """
    flow = Flow(function)
    noise = [loop for loop in flow.loops if loop.innermost and loop.draws_noise]
    if not noise:
        return _straight_path(flow)
    found: list[Path] = []
    for size in range(1, len(noise) + 1):
        for chosen in itertools.combinations(noise, size):
            avoiding = frozenset().union(*(loop.blocks for loop in noise if loop not in chosen))
            around = [
                loop
                for loop in flow.loops
                if not loop.innermost
                and loop.stores_results
                and all(inner.blocks <= loop.blocks for inner in chosen)
            ]
            row_loop = max(around, key=lambda loop: len(loop.blocks), default=None)
            heads = [loop.head for loop in chosen]
            if not _together(flow, row_loop, heads, avoiding):
                continue
            scans = [
                loop
                for loop in flow.loops
                if loop.innermost
                and is_scan(loop)
                and loop.head not in avoiding
                and (row_loop is None or loop.blocks <= row_loop.blocks)
                and _together(flow, row_loop, [loop.head, *heads], avoiding)
            ]
            found.append(Path(len(found) + 1, flow, chosen, _passes(scans), row_loop, avoiding))
    return found


def _found(way: list[int] | None) -> list[int]:
    if way is None:
        raise CodeError("there is no forward way through all of its loops to its end")
    return way


def _straight_path(flow: Flow) -> list[Path]:
    """A kernel that draws noise outside of loops, as Triton's for few codes do."""
    multiplications = philox_multiplications(
        instruction for number in flow.order for instruction in flow.blocks[number].instructions
    )
    if max(multiplications) <= 2:
        return []
    if any(loop.draws_noise for loop in flow.loops):
        raise CodeError("its noise is drawn in a loop around other loops")
    return [Path(1, flow, (), straight_pairs=WORDS * philox_blocks(multiplications))]


def _together(flow: Flow, row_loop: Loop | None, heads: list[int], avoiding: frozenset[int]) -> bool:
    """Whether one row can run all of these loops."""
    if row_loop is None:
        return flow.through(0, heads, flow.exits, avoiding) is not None
    elsewhere = avoiding | (frozenset(flow.order) - row_loop.blocks)
    return flow.through(row_loop.head, heads, flow.latches(row_loop.head), elsewhere) is not None


def _passes(scans: list[Loop]) -> tuple[tuple[Loop, ...], ...]:
    """Loops grouped into passes.

    A compiler that unrolls a loop adds loops of fewer codes for the remainder: a loop that follows one of
    more codes belongs to the same pass.
    """
    groups: list[list[Loop]] = []
    for loop in scans:
        if groups and (is_scan(loop) or 0) < (is_scan(groups[-1][-1]) or 0):
            groups[-1].append(loop)
        else:
            groups.append([loop])
    return tuple(tuple(group) for group in groups)


def _turns(group: tuple[Loop, ...], codes: int) -> list[tuple[Loop, int]]:
    """How often each loop of a pass runs: the first as often as it can, the next for what is left."""
    turns = []
    for position, loop in enumerate(group):
        size = is_scan(loop) or 1
        last = position == len(group) - 1
        count = math.ceil(codes / size) if last else codes // size
        turns.append((loop, count))
        codes = max(0, codes - count * size)
    return turns


def _times(counts: Counter[str], factor: float) -> Counter[str]:
    # A Counter adds up floats as it does ints; its type says otherwise.
    return Counter({pipe: count * factor for pipe, count in counts.items()})
