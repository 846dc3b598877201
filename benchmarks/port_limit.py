"""The port limit of the AVX-512 kernels: the time of their own instructions without dependencies.

    python benchmarks/port_limit.py [OBJECT]    by loop, on this processor

OBJECT is a compiled kernel, by default the installed native module. Its inner loops are found in the
disassembly (cpu_ports.py). Each becomes a loop of the same instructions in which nothing waits for anything:
what is read is never written, and a register that an instruction both reads and writes was last written many
instructions before. A loop runs in the compiled order and in some others, and the fastest counts. So the
limit is what the processor at hand shows, and needs neither a table of its ports nor its clock.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import mmap
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from cpu_ports import STAGES, count, disassemble, loops, pick

# Vector instructions whose destination is an operand too; that of a masked one that merges is as well.
_IN_PLACE = ("vfm", "vfnm", "vpternlog", "vpermt2", "vpermi2", "vpshrdv", "vpshldv", "vpmadd52", "vpdp")
_READS_ONLY = re.compile(r"(cmp|test)[bwlq]?|vu?comis[sd]|vptest|k(or)?test[bwdq]")
_SCALAR_IN_PLACE = re.compile(r"(add|sub|and|or|xor|sar|shr|shl|inc|dec|neg|not)[lq]?")
_SCALAR_WRITES = re.compile(r"mov[lq]?|movslq|movabs|lea[lq]?")
_UNSUITED = ("vgather", "vpgather", "vscatter", "vpscatter", "vzero")

# Registers by what happens to them: only read, only written, and both.
_VECTORS = {"read": range(8), "written": range(8, 12), "both": range(12, 32)}
_MASKS = {"read": range(1, 4), "written": range(4, 8)}
_SCALARS = {"read": ("r8", "r9"), "written": ("rax", "rcx"), "both": ("rdx", "r10", "r11")}

# Loads go to the lines of one half of a page and stores to those of the other: no load waits for a store, for
# its value or because the low bits of their addresses agree.
_LINE, _PAGE = 64, 4096
_OTHER_ORDERS = 3
# Codes of a run: 0.1 to 0.4 ms, beside which the call and the clock's reading are nothing, and which few
# interrupts fall into.
_CODES = 1 << 17
_CHAIN, _CYCLES_EACH = 64, 3  # of the multiplications that tell the clock


class _Registers:
    """Gives out registers and places in memory, in turn."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, str], Iterator[str]] = {}
        kinds: tuple[tuple[str, Any], ...] = (("v", _VECTORS), ("k", _MASKS), ("s", _SCALARS))
        for kind, uses in kinds:
            for use, names in uses.items():
                self._next[kind, use] = cycle(map(str, names))
        self._lines = {half: cycle(range(half, half + _PAGE // 2, _LINE)) for half in (0, _PAGE // 2)}

    def renamed(self, register: str, use: str) -> str:
        if vector := re.fullmatch(r"%([xyz]mm)\d+", register):
            return f"%{vector[1]}{next(self._next['v', use])}"
        if re.fullmatch(r"%k\d", register) and use != "both":
            return f"%k{next(self._next['k', use])}"
        if re.fullmatch(r"%(r[abcd]x|r[sd]i|r[sb]p|r\d+)", register):
            return "%" + next(self._next["s", use])
        if re.fullmatch(r"%(e[abcd]x|e[sd]i|e[sb]p|r\d+d)", register):
            name = next(self._next["s", use])
            return f"%{name}d" if name[1:].isdigit() else f"%e{name[1:]}"
        raise ValueError(f"unknown register: {register}")

    def place(self, operand: str, *, stored: bool) -> str:
        """A line of the page for an operand in memory; with an index, of 0, where it has one."""
        index = re.search(r"\([^,)]*,[^,)]+(,\d)?\)", operand)
        line = next(self._lines[_PAGE // 2 if stored else 0])
        return f"{line:#x}(%rsi{',%r8' + (index[1] or '') if index else ''})"


def independent(lines: list[str]) -> list[str]:
    """The same instructions (AT&T syntax) with other registers and addresses, so that none waits for another.

    Raises ValueError for an instruction or a register of which this does not know how.
    """
    registers = _Registers()
    return [_renamed(line, registers) for line in lines]


def _renamed(line: str, registers: _Registers) -> str:
    name, _, rest = line.partition(" ")
    operands = re.findall(r"(?:\([^)]*\)|[^,(])+", rest.strip())
    if not operands or name.startswith(_UNSUITED):
        raise ValueError(f"unknown instruction: {line}")
    use = _use_of_last(line, name, operands[-1])
    renamed = []
    for position, operand in enumerate(operands):
        last = position == len(operands) - 1
        bare, *masks = re.split(r"(?=\{)", operand, maxsplit=1)
        if "(" in bare:
            bare = registers.place(bare, stored=last and use != "read")
        elif bare.startswith("%"):
            bare = registers.renamed(bare, use if last else "read")
        given = re.sub(r"%k\d", lambda mask: registers.renamed(mask[0], "read"), "".join(masks))
        renamed.append(bare + given)
    return f"{name} {','.join(renamed)}"


def _use_of_last(line: str, name: str, last: str) -> str:
    """What the instruction does with its last operand: "read", "written" or "both"."""
    in_memory = "(" in last
    if _READS_ONLY.fullmatch(name):
        return "read"
    if name[0] in "vk":
        merges = "{%k" in last and "{z}" not in last and not last.startswith("%k") and not in_memory
        return "both" if merges or name.startswith(_IN_PLACE) else "written"
    if _SCALAR_WRITES.fullmatch(name):
        return "written"
    if _SCALAR_IN_PLACE.fullmatch(name) and not in_memory:
        return "both"
    raise ValueError(f"unknown instruction: {line}")


def orders(lines: list[str]) -> list[list[str]]:
    """The instructions of a loop without its closing comparison: as compiled, and in other orders."""
    body = lines[:-1] if lines[-1].startswith("cmp") else lines
    return [body, *(random.Random(seed).sample(body, len(body)) for seed in range(_OTHER_ORDERS))]


def assembly(bodies: list[list[str]]) -> str:
    """Functions turn_0, turn_1 ... of (turns, page of ones): each runs one body so many times.

    The comparison and the jump that close a loop are those that count the turns.
    """
    text = [".text"]
    for number, body in enumerate(bodies):
        text += [f".globl turn_{number}", ".p2align 6", f"turn_{number}:"]
        text += [f"vbroadcastss (%rsi),%zmm{register}" for register in range(32)]
        text += ["mov $0x5555,%eax", *(f"kmovw %eax,%k{mask}" for mask in range(1, 8))]
        text += [f"xor %{name},%{name}" for uses in _SCALARS.values() for name in uses]
        text += [".p2align 6", "1:", *body, "sub $1,%rdi", "jnz 1b", "vzeroupper", "ret"]
    return "\n".join([*text, '.section .note.GNU-stack,"",@progbits', ""])


def load(bodies: list[list[str]]) -> list[Callable[[int, int], None]]:
    """The functions of `assembly`, compiled: each takes the number of turns and the address of the page."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "turns.s"), Path(folder, "turns.so")
        source.write_text(assembly(bodies))
        command = ["gcc", "-shared", "-nostdlib", "-o", str(library), str(source)]
        subprocess.run(command, capture_output=True, text=True, check=True)
        loaded = ctypes.CDLL(str(library))
    functions = [getattr(loaded, f"turn_{number}") for number in range(len(bodies))]
    for function in functions:
        function.argtypes, function.restype = (ctypes.c_long, ctypes.c_void_p), None
    return functions


def page_of_ones() -> Any:
    """An aligned page of float32 ones, which `ctypes.addressof` gives the address of."""
    page = (ctypes.c_float * (_PAGE // 4)).from_buffer(mmap.mmap(-1, _PAGE))
    page[:] = [1.0] * len(page)
    return page


class PortLimit:
    """The loops of a compiled kernel without dependencies. `missing`: why there are none, or empty."""

    def __init__(self, module: Path, instruction_sets: list[str]) -> None:
        self.missing = ""
        self._least: list[float] = []  # seconds of a turn, of the fastest run so far
        if platform.system() != "Linux" or platform.machine() != "x86_64" or "avx512" not in instruction_sets:
            self.missing = "the port limit is that of AVX-512, under Linux"
            return
        absent = [tool for tool in ("objdump", "gcc") if shutil.which(tool) is None]
        if absent:
            self.missing = f"{' and '.join(absent)} not installed"
            return
        candidates = loops(disassemble(module))
        found = {stage.name: lines for stage in STAGES if (lines := pick(stage, candidates))}
        unlike = [stage.name for stage in STAGES if stage.name not in found]
        if unlike:
            self.missing = f"this compiler's loops are unlike those known: {', '.join(unlike)}"
            return
        self._codes = {s.name: count(s.counted, found[s.name]) // s.each for s in STAGES}
        try:
            bodies = [independent(order) for s in STAGES for order in orders(found[s.name])]
            self._functions = load([*bodies, ["imul %rax,%rax"] * _CHAIN])
        except ValueError as error:
            self.missing = str(error)
        except subprocess.CalledProcessError as error:
            self.missing = f"gcc fails: {error.stderr.strip()[-160:]}"
        else:
            self._page = page_of_ones()
            self._least = [math.inf] * len(self._functions)

    def turn(self) -> None:
        """Run every loop once, and the multiplications that tell the clock."""
        codes = [self._codes[stage.name] for stage in STAGES for _ in range(1 + _OTHER_ORDERS)]
        for number, (function, step) in enumerate(zip(self._functions, [*codes, _CHAIN], strict=True)):
            turns, page = _CODES // step, ctypes.addressof(self._page)
            start = time.perf_counter()
            function(turns, page)
            self._least[number] = min(self._least[number], (time.perf_counter() - start) / turns)

    def loop_seconds(self, name: str) -> float:
        """Seconds for 16 pairs of a row and a code in one loop, after some turns."""
        first = [stage.name for stage in STAGES].index(name) * (1 + _OTHER_ORDERS)
        return min(self._least[first : first + 1 + _OTHER_ORDERS]) / self._codes[name]

    def seconds(self, name: str) -> float:
        """Seconds for 16 pairs in all loops of a pass, "forward" or "backward"."""
        return sum(self.loop_seconds(stage.name) for stage in STAGES if name in stage.passes.split())

    def cycle_seconds(self) -> float:
        """Seconds of a cycle, by multiplications of which each waits for the one before."""
        return self._least[-1] / (_CHAIN * _CYCLES_EACH)


def main() -> int:
    """Print the limits; 0 also where something is missing, with the reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("object", nargs="?", type=Path)
    path = parser.parse_args().object
    from fqvae_kernels import _native

    limit = PortLimit(path or Path(_native.__file__), _native.instruction_sets())
    if limit.missing:
        print(f"skipped: {limit.missing}", file=sys.stderr)
        return 0
    for _ in range(300):
        limit.turn()
    clock = limit.cycle_seconds()
    print(f"For 16 pairs, at {1e-9 / clock:.2f} GHz:\n\n| loop | ns | cycles |\n| --- | ---: | ---: |")
    rows = [(stage.name, limit.loop_seconds(stage.name)) for stage in STAGES]
    for name, seconds in [*rows, *((name, limit.seconds(name)) for name in ("forward", "backward"))]:
        print(f"| {name} | {seconds * 1e9:.2f} | {seconds / clock:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
