"""PTX text to functions, variables and statements; translate.py knows what an instruction means."""

import bisect
import functools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import datatypes

NAME = r"[\w$%]+"


class PtxError(RuntimeError):
    """PTX that cannot be read or translated, or a kernel that did something wrong while it ran."""


@dataclass(frozen=True)
class Variable:
    """A variable, its size in bytes. contents None: not initialised. dynamic: the launch gives the size."""

    line: int
    name: str
    space: str
    alignment: int
    size: int
    dynamic: bool
    contents: bytes | None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel or function, at a byte offset among its parameters."""

    name: str
    type: str
    offset: int
    size: int


@dataclass(frozen=True)
class Instruction:
    """guard: (negated, predicate) of "@p" in front. modifiers: the words after the opcode, dots left out.

    span: where it begins and, after the semicolon, ends in the module's text.
    """

    line: int
    span: tuple[int, int]
    text: str
    guard: tuple[bool, str] | None
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Registers:
    line: int
    type: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Label:
    line: int
    name: str


@dataclass(frozen=True)
class BranchTargets:
    line: int
    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ScopeStart:
    line: int


@dataclass(frozen=True)
class ScopeEnd:
    line: int


Statement = Instruction | Registers | Variable | Label | BranchTargets | ScopeStart | ScopeEnd


@dataclass(frozen=True)
class Function:
    """A kernel (is_kernel) or device function. directives: .maxntid and the like with their numbers."""

    line: int
    name: str
    is_kernel: bool
    results: tuple[Parameter, ...]
    parameters: tuple[Parameter, ...]
    directives: dict[str, tuple[int, ...]]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Module:
    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)

    @property
    def kernels(self) -> tuple[str, ...]:
        return tuple(name for name, function in self.functions.items() if function.is_kernel)


def split_list(text: str) -> tuple[str, ...]:
    """The items of a list with commas; braces, brackets and parentheses hold together."""
    items, depth, start = [], 0, 0
    for found in re.finditer(r"[][(){},]", text):
        if found[0] == "," and depth == 0:
            items.append(text[start : found.start()].strip())
            start = found.end()
        depth += (found[0] in "[({") - (found[0] in "])}")
    items.append(text[start:].strip())
    return tuple(items) if items != [""] else ()


def without_comments(ptx: str) -> str:
    """The text with spaces for comments and debugging information; every character left stays where it is."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    text = re.sub(r"/\*.*?\*/|//[^\n]*", blank, ptx, flags=re.DOTALL)
    text = re.sub(r"^[ \t]*\.(loc|file)\b[^\n]*", blank, text, flags=re.MULTILINE)
    return re.sub(r"\.section\s+\S+\s*\{[^{}]*\}|\.pragma[^;]*;", blank, text)


class Parser:
    """Reads a module from the front to the back. Errors name the line."""

    def __init__(self, ptx: str):
        self.text = without_comments(ptx)
        self.line_ends = [match.start() for match in re.finditer("\n", self.text)]

    def line(self, position: int) -> int:
        return bisect.bisect_left(self.line_ends, position) + 1

    def error(self, position: int, message: str) -> PtxError:
        return PtxError(f"line {self.line(position)}: {message}")

    def skip_space(self, position: int) -> int:
        match = re.compile(r"\s*").match(self.text, position)
        assert match
        return match.end()

    def end_of(self, position: int, stop: str) -> int:
        """Where the first `stop` outside of braces and parentheses is."""
        depth = 0
        for found in re.compile(rf"[{{}}()\{stop}]").finditer(self.text, position):
            if depth == 0 and found[0] == stop:
                return found.start()
            depth += (found[0] in "{(") - (found[0] in "})")
        raise self.error(position, f"no {stop!r} to the end of the file")

    def module(self) -> Module:
        module = Module()
        header = re.compile(r"\.(version|target|address_size)\b[^\n]*")
        function = re.compile(r"(?:\.(?:visible|extern|weak|common)\s+)*\.(entry|func)\b")
        position = self.skip_space(0)
        while position < len(self.text):
            if match := header.match(self.text, position):
                position = match.end()
            elif match := function.match(self.text, position):
                position = self.function(module, match[1] == "entry", position, match.end())
            else:
                end = self.end_of(position, ";")
                variable = self.variable(position, self.text[position:end])
                module.variables[variable.name] = variable
                position = end + 1
            position = self.skip_space(position)
        return module

    def function(self, module: Module, is_kernel: bool, start: int, position: int) -> int:
        """Reads a function's heading and body, or its declaration; gives where it ends."""

        def parenthesised(position: int) -> tuple[str, int]:
            position = self.skip_space(position)
            if not self.text.startswith("(", position):
                return "", position
            end = self.end_of(position + 1, ")")
            return self.text[position + 1 : end], end + 1

        results, position = parenthesised(position)
        name = re.compile(rf"\s*({NAME})").match(self.text, position)
        if not name:
            raise self.error(position, "a function without a name")
        parameters, position = parenthesised(name.end())
        heading = re.compile(r"[^;{]*").match(self.text, position)
        assert heading
        position = heading.end()
        if self.text.startswith(";", position):
            return position + 1
        end = self.end_of(position + 1, "}")
        module.functions[name[1]] = Function(
            self.line(start),
            name[1],
            is_kernel,
            self.parameters(start, results),
            self.parameters(start, parameters),
            {
                word: tuple(int(number) for number in numbers.split(","))
                for word, numbers in re.findall(r"\.(\w+)\s+([\d, ]*\d)", heading[0])
            },
            tuple(self.body(position + 1, end)),
        )
        return end + 1

    def parameters(self, position: int, text: str) -> tuple[Parameter, ...]:
        pattern = re.compile(
            rf"\.(?:param|reg)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+"
            rf"(?:\.ptr\s*(?:\.(?:global|shared|const|local)\s*)?(?:\.align\s+\d+\s+)?)?({NAME})\s*(?:\[(\d*)\])?"
        )
        offset, found = 0, []
        for item in split_list(text):
            match = pattern.fullmatch(item)
            if not match or match[2] not in datatypes.WIDTHS:
                raise self.error(position, f"parameter not understood: {item}")
            element = datatypes.size(match[2])
            size = element * int(match[4]) if match[4] else element
            alignment = int(match[1] or element)
            offset = -(-offset // alignment) * alignment
            found.append(Parameter(match[3], match[2], offset, size))
            offset += size
        return tuple(found)

    def variable(self, position: int, text: str) -> Variable:
        match = re.fullmatch(
            rf"\s*((?:\.(?:visible|extern|weak|common)\s+)*)\.(shared|global|const|local|param)"
            rf"(?:\s+\.attribute\([^)]*\))?(?:\s+\.align\s+(\d+))?\s+\.(\w+)\s+({NAME})\s*((?:\[\s*\d*\s*\]\s*)*)"
            rf"(?:=\s*(.*?))?\s*",
            text,
            re.DOTALL,
        )
        if not match or match[4] not in datatypes.WIDTHS:
            raise self.error(position, f"not understood: {' '.join(text.split())[:100]}")
        linkage, space, alignment, type_, name, dimensions, initial = match.groups()
        lengths = re.findall(r"\[\s*(\d*)\s*\]", dimensions)
        element = datatypes.size(type_)
        size = element
        for length in lengths:
            size *= int(length or 1)
        contents = None
        if initial is not None:
            contents = self.contents(position, type_, initial).ljust(size, b"\0")
            size = max(size, len(contents))
        dynamic = "" in lengths and contents is None
        if ".extern" in linkage and not dynamic:
            raise self.error(position, f"the variable {name} is defined elsewhere")
        return Variable(self.line(position), name, space, int(alignment or element), size, dynamic, contents)

    def contents(self, position: int, type_: str, initial: str) -> bytes:
        """An initialiser's bytes."""
        values = [value for value in re.sub(r"[{}]", "", initial).split(",") if value.strip()]
        pieces = []
        for value in (value.strip() for value in values):
            if not re.fullmatch(r"[-+]?[\w.]+(?:[-+]\d+)?", value) or not re.match(r"[-+]?\.?\d", value):
                raise self.error(position, f"initial value not understood: {value}")
            if type_ in datatypes.FLOATS:
                pieces.append(struct.pack("<f" if type_ == "f32" else "<d", datatypes.float_literal(value)))
            else:
                bits = datatypes.integer_literal(value) % (1 << datatypes.width(type_))
                pieces.append(bits.to_bytes(datatypes.size(type_), "little"))
        return b"".join(pieces)

    def body(self, position: int, end: int) -> Iterator[Statement]:
        label = re.compile(rf"({NAME})\s*:(?!:)")
        targets = re.compile(r"\s*\.branchtargets\b([^;]*);")
        while (position := self.skip_space(position)) < end:
            line = self.line(position)
            if self.text[position] in "{}":
                yield ScopeStart(line) if self.text[position] == "{" else ScopeEnd(line)
                position += 1
            elif match := label.match(self.text, position):
                if listed := targets.match(self.text, match.end()):
                    yield BranchTargets(line, match[1], split_list(listed[1]))
                    position = listed.end()
                else:
                    yield Label(line, match[1])
                    position = match.end()
            else:
                stop = self.end_of(position, ";")
                text = " ".join(self.text[position:stop].split())
                if text.startswith(".reg"):
                    yield self.registers(position, text)
                elif text.startswith("."):
                    yield self.variable(position, text)
                elif text:
                    yield self.instruction(position, stop + 1, text)
                position = stop + 1

    def registers(self, position: int, text: str) -> Registers:
        match = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text)
        if not match or match[1] not in datatypes.WIDTHS:
            raise self.error(position, f"registers not understood: {text}")
        names: list[str] = []
        for item in split_list(match[2]):
            counted = re.fullmatch(rf"({NAME})<(\d+)>", item)
            names += [f"{counted[1]}{i}" for i in range(int(counted[2]))] if counted else [item]
        return Registers(self.line(position), match[1], tuple(names))

    def instruction(self, position: int, end: int, text: str) -> Instruction:
        match = re.fullmatch(rf"(?:@(!?)\s*({NAME})\s+)?([a-z]\w*)((?:(?:\.|::)\w+)*)\s*(.*)", text)
        if not match:
            raise self.error(position, f"not understood: {text}")
        negated, predicate, opcode, modifiers, operands = match.groups()
        return Instruction(
            self.line(position),
            (position, end),
            text,
            (negated == "!", predicate) if predicate else None,
            opcode,
            tuple(modifiers.split(".")[1:]) if modifiers else (),
            split_list(operands),
        )


@functools.lru_cache(maxsize=8)  # a module's kernels are often loaded one after another
def parse(ptx: str) -> Module:
    """Reads a module of PTX. PtxError: something in it is not understood."""
    return Parser(ptx).module()
