"""Counts the operations of the AVX-512 kernels' inner loops by port, for two processors.

    python benchmarks/cpu_ports.py [OBJECT]

OBJECT is a compiled kernel, by default the installed native module. The loops are found in its disassembly by
what they contain. For Zen 4 the ports are those measured for docs/cpu_ports.md, since LLVM's model of it has
wrong throughputs for many 512-bit instructions; for Ice Lake the pressure is llvm-mca's. All figures are
cycles for 16 pairs of a row and a code, one register full.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

# Zen 4: the pipes that may take an instruction. One of 512 bits takes two turns, of _TWICE four.
_ZEN4 = {
    frozenset("01"): "vfm vmul vpmul vpshrd vcmp",
    frozenset("23"): "vadd vsub vmin vmax vpsr vpsl vgetexp vgetmant vreduce vscalef vcvt",
    frozenset("12"): "vperm vpermt vpermi vunpck vinsert",
    frozenset("123"): "vmovs vpshuf",
    frozenset("0123"): "vpxor vpternlog vpadd vpsub vpand vpblend vblend vxor vand",
}
_TWICE = ("vreduce", "vscalef")
# Loads, stores and renamed registers take no pipe.
_FREE = ("vmova", "vmovu", "vmovdq", "vbroadcast", "vpbroadcast")


class Stage(NamedTuple):
    """An inner loop, told from others by how many of some instructions it has for each code."""

    name: str
    counted: str  # the instruction that counts the codes, and how many of it there are for each
    each: int
    also: dict[str, int]
    passes: str  # which passes it belongs to


STAGES = (
    Stage("words", "vpmuludq", 8, {"vpshrdd": 1, "vaddps": 1}, "forward backward"),
    Stage(
        "log2", r"vgetmantps \$0x7", 1, {"vfm": 4, "vpsrld": 1, "vsubps": 0, "vmul": 0}, "forward backward"
    ),
    Stage("costs", r"vgetmantps \$0x4", 1, {"vfm": 4, "vcmp": 1, "vminps": 1, "vmul": 0}, "forward"),
    Stage("weights and sums", "vscalef", 1, {"vfm": 7, "vaddps": 1, "vsubps": 0, "vmul": 0}, "forward"),
    Stage("log2 w", r"vgetmantps \$0x4", 1, {"vfm": 5, "vcmp": 0, "vsubps": 1, "vmul": 0}, "backward"),
    Stage("gradients", "vscalef", 1, {"vfm": 8, "vmulps": 1, "vsubps": 1, "vaddps": 0}, "backward"),
)


def disassemble(path: Path) -> str:
    """objdump's listing of a compiled kernel."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def loops(disassembly: str) -> list[list[str]]:
    """The bodies, without the jump, of all loops that contain no other jump."""
    found: list[list[str]] = []
    body: list[tuple[int, str]] = []
    for match in re.finditer(r"^\s*([0-9a-f]+):\t(.+)$", disassembly, re.MULTILINE):
        address, text = int(match[1], 16), re.sub(r"\s*(<.*|#.*)$", "", match[2]).strip()
        body.append((address, text))
        if re.match(r"j|call|ret", text):
            target = re.match(r"j\w+\s+([0-9a-f]+)$", text)
            if target and int(target[1], 16) in {place for place, _ in body}:
                found.append([line for place, line in body[:-1] if place >= int(target[1], 16)])
            body = []
    return found


def count(pattern: str, lines: list[str]) -> int:
    """The number of lines that begin with the pattern."""
    return sum(re.match(pattern, line) is not None for line in lines)


def pick(stage: Stage, candidates: list[list[str]]) -> list[str] | None:
    """The shortest loop that is this stage, of rows within the codebook, on 512-bit registers."""
    fitting = []
    for lines in candidates:
        codes, rest = divmod(count(stage.counted, lines), stage.each)
        if codes >= 2 and not rest and all(count(name, lines) == n * codes for name, n in stage.also.items()):
            fitting.append((len(lines) / codes, lines))
    return min(fitting, default=(0.0, None))[1]


def zen4_work(lines: list[str]) -> tuple[Counter[frozenset[str]], int]:
    """Turns of the pipes by set of pipes, and stores."""
    turns: Counter[frozenset[str]] = Counter()
    stores = 0
    for line in lines:
        name = line.split()[0]
        if "zmm" not in line:
            continue
        stores += re.search(r",[^,%]*\(.*\)$", line) is not None
        masked_blend = "broadcast" in name and "{%k" in line
        if any(name.startswith(free) for free in _FREE) and not masked_blend:
            continue
        for pipes, names in _ZEN4.items():
            if masked_blend or any(name.startswith(start) for start in names.split()):
                turns[frozenset("0123") if masked_blend else pipes] += 4 if name.startswith(_TWICE) else 2
                break
        else:
            raise ValueError(f"unknown instruction: {line}")
    return turns, stores


def zen4_bound(turns: Counter[frozenset[str]]) -> tuple[float, str]:
    """The cycles that the busiest set of pipes needs, and which that is."""
    sets = [frozenset(pipes) for size in range(1, 5) for pipes in combinations("0123", size)]
    bounds = [(sum(n for pipes, n in turns.items() if pipes <= some) / len(some), some) for some in sets]
    cycles, pipes = max(bounds, key=lambda bound: (bound[0], len(bound[1])))
    return cycles, "".join(sorted(pipes))


def icelake_pressure(mca: str, lines: list[str]) -> dict[str, float]:
    """llvm-mca's pressure by port, for one turn of the loop."""
    command = [mca, "-mcpu=icelake-server", "-instruction-info=0", "-resource-pressure=1", "-iterations=100"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    ports = re.findall(r"^\[(\d+)\]\s+- (\w+)", done.stdout, re.MULTILINE)
    values = done.stdout.split("Resource pressure per iteration:")[1].split("\n")[2].split()
    pressure = {
        name: 0.0 if value == "-" else float(value) for (_, name), value in zip(ports, values, strict=True)
    }
    return {name.removeprefix("ICXPort"): value for name, value in pressure.items() if "Port" in name}


def main() -> int:
    """Print the table; 0 also where a tool is missing, with the reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("object", nargs="?", type=Path)
    path = parser.parse_args().object
    mca = next((name for name in ("llvm-mca", "llvm-mca-16") if shutil.which(name)), None)
    if mca is None or shutil.which("objdump") is None:
        print("skipped: llvm-mca and objdump are needed, and one of them is not installed", file=sys.stderr)
        return 0
    if path is None:
        from fqvae_kernels import _native

        path = Path(_native.__file__)
    candidates = loops(disassemble(path))
    zen_heads = "Zen 4: FP0-1 | FP2-3 | FP1-2(-3) | any | stores | bound | by"
    print(f"| loop | {zen_heads} | Ice Lake: p0 | p1 | p5 | bound |")
    print("| --- |" + " ---: |" * 6 + " --- |" + " ---: |" * 4)
    sums: dict[str, list[float]] = {"forward": [0.0, 0.0], "backward": [0.0, 0.0]}
    for stage in STAGES:
        lines = pick(stage, candidates)
        if lines is None:
            print(f"| {stage.name}: not found |" + " |" * 11)
            continue
        codes = count(stage.counted, lines) / stage.each
        turns, stores = zen4_work(lines)
        cycles, pipes = zen4_bound(turns)
        of = {"".join(sorted(some)): n / 2 / codes for some, n in turns.items()}
        zen = [of.get("01", 0), of.get("23", 0), of.get("12", 0) + of.get("123", 0), of.get("0123", 0)]
        ice = icelake_pressure(mca, lines)
        vector = [ice[port] / codes for port in "015"]
        # Port 1 takes no vector instruction while 512-bit ones are about: its share falls to the other two.
        bounds = cycles / codes, sum(vector) / 2
        figures = [*zen, stores / codes, bounds[0], f"FP{pipes}", *vector, bounds[1]]
        print(
            f"| {stage.name} | " + " | ".join(x if isinstance(x, str) else f"{x:.1f}" for x in figures) + " |"
        )
        for name in stage.passes.split():
            sums[name] = [total + bound for total, bound in zip(sums[name], bounds, strict=True)]
    for name, (zen_sum, ice_sum) in sums.items():
        print(f"| {name} |" + " |" * 5 + f" {zen_sum:.1f} |" + " |" * 4 + f" {ice_sum:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
