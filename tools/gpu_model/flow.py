"""The flow of a kernel: its loops, and the shortest and longest way through it, counted by pipe.

A loop's body is the blocks from which a branch back to its head can be reached (the natural loop). What runs
once per turn is counted along the longest way from head to that branch, so code behind a condition counts in
full. Two kinds of code are taken not to run often enough to matter: the target of BRA.DIV (a warp that has
come apart at a shuffle) and subroutines (CALL: the rare cases of a division).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .sass import CodeError, Function, Instruction

# Philox4x32's multipliers (Salmon et al., SC 2011) as the disassembler may print them.
_PHILOX = (
    {"0xd2511f53", "-0x2daee0ad"},
    {"0xcd9e8d57", "-0x326172a9"},
)
_ROUNDS = 10
# Instructions that end a block.
_CUTS = {"BRA", "BRX", "BRXU", "JMP", "EXIT", "RET", "CALL", "BSYNC"}
_COMPARISONS = {"FSETP", "FMNMX", "DSETP", "FMNMX3"}


@dataclass
class Block:
    """Instructions that run one after another; `successors` are indices of blocks."""

    instructions: list[Instruction]
    successors: list[int] = field(default_factory=list)

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(instruction.pipe for instruction in self.instructions)


@dataclass
class Loop:
    """One loop. way: the instructions of its longest turn. shortest: how many the shortest turn has."""

    head: int
    blocks: frozenset[int]
    instructions: list[Instruction]
    innermost: bool
    way: list[Instruction]
    shortest: int

    @cached_property
    def turn(self) -> Counter[str]:
        """Instructions of one turn by pipe."""
        return Counter(instruction.pipe for instruction in self.way)

    @property
    def slots(self) -> int:
        return len(self.way)

    @property
    def begin(self) -> int:
        return self.instructions[0].address

    @property
    def end(self) -> int:
        return self.instructions[-1].address

    def count(self, *opcodes: str) -> int:
        """How many instructions of one turn have one of these names."""
        return sum(instruction.opcode in opcodes for instruction in self.way)

    def special(self, name: str) -> int:
        return sum(i.opcode == "MUFU" and name in i.modifiers.split(".") for i in self.way)

    @cached_property
    def philox_multiplications(self) -> tuple[int, int]:
        return philox_multiplications(self.way)

    @property
    def draws_noise(self) -> bool:
        """Whether whole blocks of Philox are in it; one or two rounds, made ready for others, are not."""
        return max(self.philox_multiplications) > 2

    @property
    def stores_results(self) -> bool:
        return any(instruction.opcode in ("STG", "ST") for instruction in self.instructions)


def shared_words(instructions: Iterable[Instruction]) -> int:
    """Words of 4 bytes that a thread moves to and from shared memory."""
    return sum(max(1, i.access_bytes // 4) for i in instructions if i.pipe == "shared")


def philox_multiplications(instructions: Iterable[Instruction]) -> tuple[int, int]:
    """How often the high half of a product with each of Philox's two multipliers is taken: once a round."""
    counts = [0, 0]
    for instruction in instructions:
        modifiers = instruction.modifiers.split(".")
        if instruction.opcode in ("IMAD", "UIMAD") and ("WIDE" in modifiers or "HI" in modifiers):
            operands = {operand.strip() for operand in instruction.operands.split(",")}
            for which, names in enumerate(_PHILOX):
                counts[which] += bool(operands & names)
    return counts[0], counts[1]


def philox_blocks(counts: tuple[int, int]) -> int:
    """Philox blocks, of four words each, behind so many multiplications. Raises CodeError if they do not fit.

    A block has ten rounds with one of each; those that depend on the row alone are often moved out of the
    loop, at most two of each multiplier.
    """
    blocks = math.ceil(max(counts) / _ROUNDS)
    if any(not (_ROUNDS - 2) * blocks <= count <= _ROUNDS * blocks for count in counts):
        raise CodeError(
            f"{counts[0]} and {counts[1]} multiplications by Philox's constants are no whole number of "
            f"blocks of {_ROUNDS} rounds"
        )
    return blocks


class Flow:
    """Blocks and loops of one kernel."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.blocks = _blocks(function)
        self.order = self._reachable()
        self._dominators = self._find_dominators()
        self._back = {
            (source, target)
            for source in self.order
            for target in self.blocks[source].successors
            if self._dominators[source] >> target & 1
        }
        self._bodies = self._find_bodies()
        self._forward = {number: self._forward_steps(number) for number in self.order}
        self.loops = [self._loop(head) for head in sorted(self._bodies)]

    def longest(
        self,
        source: int,
        targets: Collection[int],
        avoiding: Collection[int] = (),
        times: Mapping[int, float] | None = None,
        sign: int = 1,
    ) -> list[int] | None:
        """The blocks of the longest forward way to one of the targets, without the target; None if none.

        times: how often to count a block, where not once. sign -1: the shortest way.
        """
        times = times or {}
        length: dict[int, float] = {source: 0.0}
        before: dict[int, int] = {}
        for number in self._topological:
            if number not in length or number in targets:
                continue
            after = length[number] + times.get(number, 1.0) * len(self.blocks[number].instructions)
            for following in self._forward[number]:
                if following in avoiding:
                    continue
                if following not in length or sign * after > sign * length[following]:
                    length[following], before[following] = after, number
        found = [target for target in targets if target in length]
        if not found:
            return None
        way = [max(found, key=lambda target: sign * length[target])]
        while way[-1] != source:
            way.append(before[way[-1]])
        return way[:0:-1]

    def through(
        self,
        source: int,
        heads: Collection[int],
        ends: Collection[int],
        avoiding: Collection[int] = (),
        times: Mapping[int, float] | None = None,
        sign: int = 1,
    ) -> list[int] | None:
        """The blocks of the longest way from one block through others to one of the ends, end included."""
        way: list[int] = []
        for head in sorted(heads, key=self._topological.index):
            part = self.longest(source, [head], avoiding, times, sign)
            if part is None:
                return None
            way += part
            source = head
        best: list[int] | None = None
        for end in ends:
            part = self.longest(source, [end], avoiding, times, sign) if end not in avoiding else None
            if part is None:
                continue
            if best is None or sign * self._length([*part, end], times) > sign * self._length(best, times):
                best = [*part, end]
        return None if best is None else way + best

    def counts(self, way: Iterable[int], times: Mapping[int, float] | None = None) -> Counter[str]:
        """Instructions by pipe of the blocks of a way."""
        total: dict[str, float] = {}
        for number in way:
            factor = (times or {}).get(number, 1.0)
            for pipe, count in self.blocks[number].counts.items() if factor else ():
                total[pipe] = total.get(pipe, 0.0) + factor * count
        # A Counter adds up floats as it does ints; its type says otherwise.
        return Counter(total)

    def _length(self, way: list[int], times: Mapping[int, float] | None) -> float:
        return sum((times or {}).get(number, 1.0) * len(self.blocks[number].instructions) for number in way)

    def latches(self, head: int) -> list[int]:
        """The blocks that lead back to the head of a loop."""
        return [source for source, target in self._back if target == head]

    def has_barrier(self, number: int) -> bool:
        return any(instruction.opcode == "BAR" for instruction in self.blocks[number].instructions)

    @cached_property
    def exits(self) -> list[int]:
        """Blocks that end the kernel: by EXIT, or where each has a condition, by any of those."""
        ends = [number for number in self.order if self.blocks[number].instructions[-1].opcode == "EXIT"]
        return [number for number in ends if not self.blocks[number].successors] or ends

    @cached_property
    def _topological(self) -> list[int]:
        """Reachable blocks, each after all that lead to it by forward steps."""
        waiting = Counter(target for source in self.order for target in self._forward[source])
        ready, ordered = [0], []
        while ready:
            number = ready.pop()
            ordered.append(number)
            for target in self._forward[number]:
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        if len(ordered) != len(self.order):
            raise CodeError("a loop is entered in two places; its flow cannot be followed")
        return ordered

    def _reachable(self) -> list[int]:
        """Blocks that can be reached, in the order of the code."""
        seen, stack = {0}, [0]
        while stack:
            for target in self.blocks[stack.pop()].successors:
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        return sorted(seen)

    def _find_dominators(self) -> dict[int, int]:
        """For each reachable block, the blocks on every way to it, as bits."""
        every = sum(1 << number for number in self.order)
        dominators = dict.fromkeys(self.order, every)
        dominators[0] = 1
        sources: dict[int, list[int]] = {number: [] for number in self.order}
        for source in self.order:
            for target in self.blocks[source].successors:
                sources[target].append(source)
        changed = True
        while changed:
            changed = False
            for number in self.order[1:]:
                common = every
                for source in sources[number]:
                    common &= dominators[source]
                common |= 1 << number
                if common != dominators[number]:
                    dominators[number], changed = common, True
        return dominators

    def _find_bodies(self) -> dict[int, frozenset[int]]:
        """The blocks of each loop by its head; loops with one head are one."""
        sources: dict[int, list[int]] = {number: [] for number in self.order}
        for number in self.order:
            for target in self.blocks[number].successors:
                sources[target].append(number)
        bodies: dict[int, set[int]] = {}
        for latch, head in self._back:
            body = bodies.setdefault(head, {head})
            stack = [latch]
            while stack:
                number = stack.pop()
                if number not in body:
                    body.add(number)
                    stack += sources[number]
        return {head: frozenset(body) for head, body in bodies.items()}

    def _forward_steps(self, number: int) -> list[int]:
        """Where a block leads without turning back; from a loop's end to what follows its head outside."""
        steps = [target for target in self.blocks[number].successors if (number, target) not in self._back]
        for head in self.blocks[number].successors:
            if (number, head) in self._back:
                steps += [
                    target
                    for target in self.blocks[head].successors
                    if target not in self._bodies[head] and (head, target) not in self._back
                ]
        return steps

    def _loop(self, head: int) -> Loop:
        body = self._bodies[head]
        outside = frozenset(self.order) - body
        ways = [self.through(head, [], self.latches(head), outside, sign=sign) for sign in (1, -1)]
        longest, shortest = ([i for n in way or [] for i in self.blocks[n].instructions] for way in ways)
        inner = any(other != head and other in body for other in self._bodies)
        code = [instruction for number in sorted(body) for instruction in self.blocks[number].instructions]
        return Loop(head, body, code, not inner, longest, len(shortest))


def is_scan(loop: Loop) -> int | None:
    """Codes that one turn of a loop without noise looks at, or None for a loop that does something else.

    They are the values that it loads; it compares each of them, and measures each's distance unless they are
    logits.
    """
    if any(loop.philox_multiplications):
        return None
    loads = [i for i in loop.way if i.opcode in ("LDS", "LDG", "LD")]
    stored = loop.count("STS", "STG")
    size = 8 if loop.count("DSETP", "DADD") else 4
    values = sum(max(1, i.access_bytes // size) for i in loads)
    compared = sum(2 if i.opcode == "FMNMX3" else 1 for i in loop.way if i.opcode in _COMPARISONS)
    return values if values and not stored and compared >= values else None


def _blocks(function: Function) -> list[Block]:
    """The kernel cut where a branch ends or arrives."""
    code = function.instructions
    index = {instruction.address: number for number, instruction in enumerate(code)}
    starts = {0} | {index[address] for address in function.labels.values() if address in index}
    starts |= {number + 1 for number, instruction in enumerate(code[:-1]) if instruction.opcode in _CUTS}
    ordered = sorted(starts)
    blocks = [Block(code[begin:end]) for begin, end in zip(ordered, [*ordered[1:], len(code)], strict=True)]
    number_of = {code[begin].address: number for number, begin in enumerate(ordered)}
    # Where BSYNC of each barrier leads.
    rejoin: dict[str, str] = {}
    calls = []
    for number, block in enumerate(blocks):
        for instruction in block.instructions:
            if instruction.opcode == "BSSY":
                rejoin[instruction.operands.split(",")[0]] = instruction.target
        last = block.instructions[-1]
        following = [number + 1] if number + 1 < len(blocks) else []
        if last.opcode in ("BRX", "BRXU", "JMP"):
            if not last.targets:
                raise CodeError(f"a computed jump ({last.opcode}) at {last.address:#x} cannot be followed")
            jumps = {number_of[_target(function, last, label)] for label in last.targets}
            block.successors = sorted(jumps | set(following if last.predicate else []))
        elif last.opcode == "BRA":
            # BRA.DIV leaves for warps that have come apart; the model takes whole ones.
            jump = [] if ".DIV" in last.modifiers else [number_of[_target(function, last, last.target)]]
            block.successors = sorted(set(jump + (following if _conditional(last) else [])))
        elif last.opcode in ("EXIT", "RET"):
            block.successors = following if last.predicate else []
        elif last.opcode == "BSYNC" and last.operands in rejoin and not last.predicate:
            block.successors = [number_of[_target(function, last, rejoin[last.operands])]]
        else:
            block.successors = following
            if last.opcode == "CALL" and last.target in function.labels:
                calls.append((block, number_of[function.labels[last.target]]))
    for block, target in calls:
        # The assembler also writes CALL for a jump that never comes back.
        if not _returns(blocks, target):
            block.successors = [*(block.successors if block.instructions[-1].predicate else []), target]
    return blocks


def _returns(blocks: list[Block], start: int) -> bool:
    """Whether a RET can be reached from a block."""
    seen, stack = {start}, [start]
    while stack:
        block = blocks[stack.pop()]
        if block.instructions[-1].opcode == "RET":
            return True
        stack += [number for number in block.successors if number not in seen]
        seen.update(block.successors)
    return False


def _conditional(branch: Instruction) -> bool:
    """Whether the next instruction may follow: a predicate before the name or, as in `BRA.U !UP0`, behind."""
    if branch.predicate not in ("", "PT", "UPT"):
        return True
    condition = branch.operands.split("`")[0].replace(" ", "").rstrip(",")
    return ".DIV" in branch.modifiers or ".CONV" in branch.modifiers or condition not in ("", "PT", "UPT")


def _target(function: Function, instruction: Instruction, label: str) -> int:
    if label not in function.labels:
        raise CodeError(f"the target of {instruction.opcode} at {instruction.address:#x} is not in it")
    return function.labels[label]
