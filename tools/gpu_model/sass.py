"""Compiled GPU code as text: runs NVIDIA's disassembler, reads what it prints, sorts instructions by pipe."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

# Pipes, in the order of the tables. "other" takes an issue slot and nothing that is counted.
PIPES = (
    "float32",
    "integer multiply",
    "alu",
    "special",
    "float64",
    "shared",
    "global",
    "shuffle",
    "uniform",
    "control",
    "other",
)
_OPCODES = {
    "float32": "FADD FADD2 FMUL FMUL2 FFMA FFMA2 FADD32I FMUL32I FFMA32I FSWZADD HADD2 HMUL2 HFMA2 HADD2_32I "
    "HFMA2_32I",
    "integer multiply": "IMAD IMUL IMUL32I IDP IDP4A",
    "alu": "IADD IADD3 IADD32I VIADD VIADDMNMX VIMNMX VIMNMX3 IMNMX ISETP ISET IABS ISCADD LEA LOP LOP3 "
    "LOP32I PLOP3 SHF SHL SHR SEL FSEL FSETP FSET FMNMX FMNMX3 FCHK HSETP2 HSET2 HMNMX2 PRMT BMSK SGXT MOV "
    "MOV32I I2FP I2IP F2FP F2IP P2R R2P PSETP PSET VOTE VABSDIFF VABSDIFF4",
    "special": "MUFU I2F I2FN F2I F2F FRND I2I POPC FLO BREV",
    "float64": "DADD DMUL DFMA DSETP DMNMX",
    "shared": "LDS STS LDSM STSM ATOMS",
    "global": "LDG STG LD ST LDL STL ATOM ATOMG RED REDG LDGSTS",
    "shuffle": "SHFL REDUX",
    "control": "BRA BRX BRXU JMP EXIT RET CALL BSSY BSYNC BREAK BAR NOP WARPSYNC YIELD BPT KILL NANOSLEEP "
    "DEPBAR LDGDEPBAR MEMBAR ERRBAR ACQBULK PREEXIT CCTL FENCE ELECT",
    "other": "LDC S2R CS2R B2R BMOV MATCH LEPC GETLMEMBASE R2B",
}
_PIPE_OF = {opcode: pipe for pipe, opcodes in _OPCODES.items() for opcode in opcodes.split()}
# Scalar instructions of a warp; their names begin with U, but these.
_UNIFORM = {"R2UR", "S2UR", "VOTEU", "LDCU"}

_INSTRUCTION = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z]\w*)((?:\.\w+)*)\s*([^;]*?)\s*;"
)
_LABEL = re.compile(r"^\s*([.$\w]+):\s*$")
_ARCHITECTURE = re.compile(r"^\s*\.(?:target\s+sm_|headerflags\b.*\bEF_CUDA_SM)(\d+)")
_SECTION = re.compile(r"^\s*\.section\s+([^\s,]+)")
_TARGET = re.compile(r"`\(([^)]+)\)")


class CodeError(Exception):
    """Compiled code, or a tool, that the model does not understand; the message says what."""


@dataclass(frozen=True)
class Instruction:
    """`target` is the label that a branch names. `opcode` has no modifiers; `modifiers` begins with a dot."""

    address: int
    predicate: str
    opcode: str
    modifiers: str
    operands: str
    target: str = ""

    @property
    def pipe(self) -> str:
        """Where it is executed. Raises CodeError for an opcode that is not in the tables."""
        if self.opcode in _PIPE_OF:
            return _PIPE_OF[self.opcode]
        if self.opcode in _UNIFORM or self.opcode.startswith("U"):
            return "uniform"
        raise CodeError(
            f"instruction {self.opcode}{self.modifiers} at {self.address:#x} is in no table of sass.py: add "
            "it to the pipe that executes it"
        )

    @property
    def targets(self) -> list[str]:
        """The labels that a computed jump may take, where the disassembler has found them."""
        found = re.search(r'BRANCH_TARGETS ([^"]*)"', self.operands)
        return found[1].split(",") if found else []

    @property
    def access_bytes(self) -> int:
        """Bytes a thread that a load or store moves; 4 unless a modifier says otherwise."""
        sizes = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
        return next((sizes[name] for name in self.modifiers.split(".") if name in sizes), 4)


@dataclass
class Function:
    """One kernel: its instructions in order, and the address that each label stands for."""

    name: str
    architecture: str = ""
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


def parse(listing: str) -> list[Function]:
    """The kernels in what `nvdisasm -c` prints."""
    functions: list[Function] = []
    architecture, current = "", None
    pending: list[str] = []
    for line in listing.splitlines():
        if found := _ARCHITECTURE.match(line):
            # sm_90a is sm_90 with instructions that nothing else has: the same machine.
            architecture = f"sm_{found[1]}"
        elif found := _SECTION.match(line):
            name = found[1].strip('"')
            current = (
                Function(name.removeprefix(".text."), architecture) if name.startswith(".text.") else None
            )
            if current is not None:
                functions.append(current)
            pending = []
        elif current is None:
            continue
        elif found := _LABEL.match(line):
            pending.append(found[1])
        elif found := _INSTRUCTION.match(line):
            address, predicate, opcode, modifiers, operands = found.groups()
            target = _TARGET.search(operands)
            current.labels.update(dict.fromkeys(pending, int(address, 16)))
            pending = []
            current.instructions.append(
                Instruction(
                    int(address, 16),
                    predicate or "",
                    opcode,
                    modifiers,
                    operands,
                    target[1] if target else "",
                )
            )
        elif line.lstrip().startswith("/*0") and ";" in line:
            raise CodeError(f"a line of the disassembly cannot be read: {line.strip()}")
    return [function for function in functions if function.instructions]


def find_tool(name: str) -> str | None:
    """The path of nvdisasm or cuobjdump: from the PATH, else from Triton's package; None without either."""
    found = shutil.which(name)
    if found:
        return found
    # Triton is not imported: looking for drivers and compilers is not needed to find a file.
    spec = importlib.util.find_spec("triton")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        candidate = Path(folder) / "backends" / "nvidia" / "bin" / name
        if candidate.exists():
            return str(candidate)
    return None


def disassemble(cubin: Path) -> str:
    """What nvdisasm prints for a cubin. Raises CodeError where there is no disassembler or it fails."""
    return _run(_tool("nvdisasm"), "-c", str(cubin))


def cubins_of(path: Path, architectures: tuple[str, ...], scratch: Path) -> list[Path]:
    """The cubins for these architectures in a file: itself, or what cuobjdump takes out of a library.

    They are put into a folder of their own in `scratch`. Raises CodeError for a file without device code.
    """
    if not path.exists():
        raise CodeError(f"{path} does not exist")
    if path.suffix == ".cubin":
        return [path]
    folder = tempfile.mkdtemp(dir=scratch)
    _run(_tool("cuobjdump"), "-xelf", "all", str(path.resolve()), cwd=folder)
    found = [
        cubin
        for cubin in sorted(Path(folder).iterdir())
        if any(re.search(rf"\b{name}\b", cubin.name.replace(".", " ")) for name in architectures)
    ]
    if not found:
        raise CodeError(f"{path} holds no code for {', '.join(architectures)}")
    return found


def resources_of(cubin: Path) -> dict[str, tuple[int, int]]:
    """Registers of a thread and bytes of static shared memory of a block, by the name of the kernel.

    Raises CodeError where there is no cuobjdump or it fails.
    """
    listing = _run(_tool("cuobjdump"), "-res-usage", str(cubin))
    found = re.findall(r"Function (\S+):\s+REG:(\d+)\b.*?\bSHARED:(\d+)", listing)
    return {name: (int(registers), int(shared)) for name, registers, shared in found}


def compile_cubin(source: Path, architecture: str, include: Path, output: Path) -> Path:
    """Compile a CUDA source with nvcc. Raises CodeError where there is no nvcc or it fails."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise CodeError("nvcc is not on the PATH: give --code a compiled file instead")
    cubin = output / f"{source.stem}.{architecture}.cubin"
    _run(
        nvcc,
        "-cubin",
        "-std=c++17",
        "-O3",
        "-DNDEBUG",
        f"-arch={architecture}",
        f"-I{include}",
        "-o",
        str(cubin),
        str(source),
    )
    return cubin


@functools.cache
def readable(name: str) -> str:
    """A C++ name without its encoding and its arguments; as it is where c++filt is missing."""
    tool = shutil.which("c++filt")
    if tool is None or not name.startswith("_Z"):
        return name
    text = _run(tool, name).strip()
    text = text.removeprefix("void ").replace("(anonymous namespace)::", "")
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return text[:position]
    return text


def _tool(name: str) -> str:
    found = find_tool(name)
    if found is None:
        raise CodeError(f"{name} was not found: it comes with the CUDA toolkit and with `pip install triton`")
    return found


def _run(*command: str, cwd: str | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CodeError(f"{Path(command[0]).name} failed: {lines[-1] if lines else 'it says nothing'}")
    return done.stdout
