"""How fast a scheduler gets through a loop with one warp, two, ...: a simulation of the compiled code.

Instructions of a warp issue in order, one a cycle, each when its inputs are ready and its pipe is free; the
warps of the scheduler take turns. Latencies are those of duration.py, [sim]. Memory is taken to answer from
shared memory only: the loops over codes load nothing else. It is where SLOT_ALONE and SLOT_EACH come from.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .duration import ADD64_LATENCY, L2_LATENCY, SHARED_LATENCY
from .sass import Instruction

# Cycles until a result can be used, by pipe. [sim]; a shuffle is taken to take as long as shared memory.
_LATENCY = {
    "special": 23,
    "float64": ADD64_LATENCY,
    "shared": SHARED_LATENCY,
    "shuffle": SHARED_LATENCY,
    "global": L2_LATENCY,
}
_USUAL_LATENCY = 4
# Cycles that an instruction keeps its pipe of a scheduler busy: 32 results at the rates of specs.py
# (9.0), a quarter of them for each scheduler. Shared memory is taken to serve the four in turn.
_BUSY = {
    "float32": 1,
    "integer multiply": 2,
    "alu": 2,
    "special": 8,
    "float64": 2,
    "shared": 4,
    "shuffle": 4,
    "global": 4,
}
_ONE_PIPE = {"integer multiply": "float32"}  # they share it
_WIDTHS = {"128": 4, "64": 2, "WIDE": 2}
_NO_RESULT = {"STS", "STG", "BRA", "EXIT", "BAR", "BSYNC", "BSSY"}
_REGISTER = re.compile(r"(?<![A-Z])(U?[RP])(\d+)")


class Step(NamedTuple):
    """What an instruction writes and reads, as names of registers, and its pipe."""

    writes: tuple[str, ...]
    reads: tuple[str, ...]
    pipe: str


def step_of(instruction: Instruction) -> Step:
    """Of one instruction, as the disassembler prints it."""
    operands = re.split(r",\s*(?![^\[]*\])", instruction.operands) if instruction.operands else []
    modifiers = instruction.modifiers.split(".")
    width = next((_WIDTHS[name] for name in modifiers if name in _WIDTHS), 1)
    if instruction.pipe == "float64":
        width = 2
    stores = instruction.opcode in _NO_RESULT
    results = 0 if stores else 1
    # A second result is a predicate: the carry of an addition, the other side of a comparison.
    while results and results < len(operands) and re.fullmatch(r"U?P(\d+|T)", operands[results]):
        if results == 2 or not re.fullmatch(r"U?P(\d+|T)|U?R(\d+|Z)", operands[0]):
            break
        results += 1
    writes = [name for operand in operands[:results] for name in _registers(operand, width)]
    reads = _registers(instruction.predicate, 1)
    for number, operand in enumerate(operands[results:], start=results):
        last = number == len(operands) - 1
        wide = 2 if ".64" in operand or ("WIDE" in modifiers and last) or instruction.pipe == "float64" else 1
        reads += _registers(operand, width if stores and last else wide)
    return Step(tuple(writes), tuple(reads), instruction.pipe)


def _registers(operand: str, width: int) -> list[str]:
    return [
        f"{kind}{int(number) + more}"
        for kind, number in _REGISTER.findall(operand)
        for more in range(1 if "P" in kind else width)
    ]


def cycles_per_slot(loop: list[Instruction], warps: int, turns: int = 20) -> float:
    """Cycles that a scheduler takes for one instruction of each of its warps, by so many turns of a loop."""
    steps = [step_of(instruction) for instruction in loop] * turns
    at, next_issue = [0] * warps, [0] * warps
    ready: list[dict[str, int]] = [{} for _ in range(warps)]
    free: dict[str, int] = {}
    cycle, turn = 0, 0
    while any(position < len(steps) for position in at):
        soonest = None
        for offset in range(warps):
            warp = (turn + offset) % warps
            if at[warp] == len(steps):
                continue
            step = steps[at[warp]]
            pipe = _ONE_PIPE.get(step.pipe, step.pipe)
            waits = [next_issue[warp], free.get(pipe, 0), *(ready[warp].get(name, 0) for name in step.reads)]
            if max(waits) <= cycle:
                free[pipe] = cycle + _BUSY.get(step.pipe, 1)
                ready[warp].update(
                    dict.fromkeys(step.writes, cycle + _LATENCY.get(step.pipe, _USUAL_LATENCY))
                )
                at[warp] += 1
                next_issue[warp] = cycle + 1
                turn = warp
                soonest = cycle + 1
                break
            soonest = max(waits) if soonest is None else min(soonest, max(waits))
        assert soonest is not None
        cycle = soonest
    return cycle / len(steps)
