"""One PTX instruction while it is translated: its modifiers, types and operands as C++.

A modifier or an operand that no translator asked for is refused by name: nothing is silently left out.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from . import datatypes
from .parse import NAME, Instruction, PtxError, split_list

SPECIAL_REGISTERS = {
    **{f"%tid.{axis}": f"T->tid[{i}]" for i, axis in enumerate("xyz")},
    **{f"%ntid.{axis}": f"block.ntid[{i}]" for i, axis in enumerate("xyz")},
    **{f"%ctaid.{axis}": f"block.ctaid[{i}]" for i, axis in enumerate("xyz")},
    **{f"%nctaid.{axis}": f"block.nctaid[{i}]" for i, axis in enumerate("xyz")},
    "%laneid": "T->lane",
    "%warpid": "T->warp",
    "%nwarpid": "((block.threads + 31) / 32)",
    "%lanemask_eq": "(1u << T->lane)",
    "%lanemask_lt": "((1u << T->lane) - 1)",
    "%lanemask_le": "((2u << T->lane) - 1)",
    "%lanemask_gt": "~((2u << T->lane) - 1)",
    "%lanemask_ge": "~((1u << T->lane) - 1)",
    "%smid": "0u",
    "%nsmid": "1u",
    "%gridid": "0u",
    "%clock": "u32(T->instructions)",
    "%clock64": "T->instructions",
    "%dynamic_smem_size": "block.dynamic_size",
    "%total_smem_size": "block.shared_size",
    "WARP_SZ": "32u",
}


@dataclass(frozen=True)
class Symbol:
    """A variable or parameter: its state space, a C++ expression for its address there, its size in bytes."""

    space: str
    address: str
    size: int


class Scope(Protocol):
    """What an operation needs to know of the function that it stands in."""

    def register(self, name: str) -> tuple[str, str] | None:
        """The C++ variable and PTX type of a register, or None if there is none of that name."""

    def symbol(self, name: str) -> "Symbol | None":
        """A variable or parameter, or None if there is none of that name."""

    def label(self, name: str) -> tuple[str, bool]:
        """The C++ label, and whether it lies before the instruction."""

    def branch_targets(self, name: str) -> tuple[str, ...]:
        """The labels of a .branchtargets list."""

    def call(self, name: str, arguments: tuple[str, ...]) -> str:
        """A call of a device function with .param variables."""


class Operation:
    """number: of this statement among all those of the translation; messages of the runtime refer to it."""

    def __init__(self, scope: Scope, instruction: Instruction, number: int):
        self.scope = scope
        self.opcode = instruction.opcode
        self.number = number
        self._operands = instruction.operands
        self._unseen_operands = set(range(len(instruction.operands)))
        self.types = tuple(word for word in instruction.modifiers if word in datatypes.WIDTHS)
        self._modifiers = [word for word in instruction.modifiers if word not in datatypes.WIDTHS]
        self._unseen_modifiers = list(self._modifiers)

    # Modifiers

    @property
    def type(self) -> str:
        """The last type: the only one, or that of the sources."""
        if not self.types:
            raise PtxError(f"none of .{', .'.join(self._modifiers)} is a type that is supported")
        return self.types[-1]

    def flag(self, word: str) -> bool:
        """Whether the modifier is there."""
        if word in self._unseen_modifiers:
            self._unseen_modifiers.remove(word)
        return word in self._modifiers

    def one_of(self, *words: str, default: str | None = None) -> str:
        """The one of these modifiers that is there."""
        found = [word for word in words if self.flag(word)]
        if len(found) > 1 or (not found and default is None):
            raise PtxError(f"expected one of .{', .'.join(words)}")
        return found[0] if found else str(default)

    def ignore(self, *words: str) -> None:
        """Modifiers that change nothing here."""
        for word in words:
            self.flag(word)

    def finish(self) -> None:
        """Raises PtxError for what no translator looked at."""
        if self._unseen_modifiers:
            raise PtxError(f"the modifier .{self._unseen_modifiers[0]} is not supported here")
        if self._unseen_operands:
            raise PtxError(f"the operand {self._operands[min(self._unseen_operands)]} is not supported here")

    # Operands

    @property
    def count(self) -> int:
        """The number of operands."""
        return len(self._operands)

    def text(self, index: int) -> str:
        """The operand as it is written."""
        if index >= len(self._operands):
            raise PtxError(f"{index + 1} operands expected, {len(self._operands)} given")
        self._unseen_operands.discard(index)
        return self._operands[index]

    def vector(self, index: int) -> tuple[str, ...]:
        """The elements of {a, b, ...}; of a single operand, itself."""
        text = self.text(index)
        return split_list(text[1:-1]) if text.startswith("{") else (text,)

    def is_vector(self, index: int) -> bool:
        return self._operands[index].startswith("{")

    def value(self, index: int, type_: str | None = None) -> str:
        """An operand in the C++ type that its PTX type (by default the instruction's) computes in."""
        return self.value_of(self.text(index), type_ or self.type)

    def value_of(self, text: str, type_: str) -> str:
        if type_ == "pred":
            return self._predicate(text)
        if register := self.scope.register(text):
            variable, held = register
            if held == "pred":
                raise PtxError(f"{text} is a predicate")
            if type_ in datatypes.FLOATS:
                bits = datatypes.unsigned(type_)
                source = variable if datatypes.unsigned(held) == bits else f"{bits}({variable})"
                return f"as_{datatypes.computing(type_)}({source})"
            wanted = datatypes.computing(type_)
            return variable if datatypes.unsigned(held) == wanted else f"{wanted}({variable})"
        if text in SPECIAL_REGISTERS:
            return f"{datatypes.computing(type_)}({SPECIAL_REGISTERS[text]})"
        if re.match(r"[-+]?\.?\d", text):
            return self._literal(text, type_)
        return f"{datatypes.computing(type_)}({self._symbol(text, 0)[1]})"

    def _predicate(self, text: str) -> str:
        negated = text.startswith("!")
        register = self.scope.register(text.lstrip("! "))
        if register is None and text in ("0", "1", "-1"):  # nvcc writes -1 for true
            return text.lstrip("-")
        if register is None or register[1] != "pred":
            raise PtxError(f"{text} is not a predicate")
        return f"!{register[0]}" if negated else register[0]

    def _literal(self, text: str, type_: str) -> str:
        is_float = re.match(r"0[fFdD][0-9a-fA-F]{8}", text) or re.fullmatch(
            r"[-+]?\d*\.\d*(?:[eE][-+]?\d+)?", text
        )
        computing = datatypes.computing(type_)
        if type_ in datatypes.FLOATS:
            if not is_float:
                raise PtxError(f"{text} is not a floating-point number")
            return f"{computing}({_cpp_float(datatypes.float_literal(text))})"
        if is_float:
            if text[:2] not in ("0f", "0F", "0d", "0D"):
                raise PtxError(f"{text} is not an integer")
            return f"{computing}(0x{text[2:]}ull)"
        bits = datatypes.integer_literal(text) % 2**64
        return f"{bits % 2**32}u" if computing == "u32" else f"{computing}({bits}ull)"

    def _symbol(self, text: str, accessed: int) -> tuple[str, str]:
        match = re.fullmatch(rf"({NAME})\s*(?:\+\s*(-?\w+))?", text)
        symbol = self.scope.symbol(match[1]) if match else None
        if match is None or symbol is None:
            raise PtxError(f"{text} is not known")
        offset = datatypes.integer_literal(match[2] or "0")
        if symbol.space == "param" and accessed and not 0 <= offset <= symbol.size - accessed:
            raise PtxError(f"{accessed} bytes at {text}, which has {symbol.size}")
        return symbol.space, f"(u64({symbol.address}) + {offset})" if offset else f"u64({symbol.address})"

    def address(self, index: int, accessed: int = 0) -> tuple[str | None, str]:
        """The address [a + b]: the state space if a variable is named, and a C++ expression.

        accessed: number of bytes. An access to a named parameter is checked here, as nothing checks it later.
        """
        text = self.text(index)
        match = re.fullmatch(r"\[\s*([^\s+]+)\s*(?:\+\s*(-?\w+))?\s*\]", text)
        if not match:
            raise PtxError(f"the address {text} is not understood")
        base, offset = match.groups()
        if self.scope.register(base):
            value = self.value_of(base, "b64")
            return None, f"({value} + s64({datatypes.integer_literal(offset)}))" if offset else value
        if re.fullmatch(r"-?\d\w*", base):
            return None, self.value_of(base, "b64")
        return self._symbol(f"{base}+{offset}" if offset else base, accessed)

    def assign(self, index: int, type_: str, expression: str) -> str:
        """A statement that puts a value of a PTX type in a register; a wider register gets it extended."""
        return self.assign_to(self.text(index), type_, expression)

    def assign_to(self, name: str, type_: str, expression: str) -> str:
        if name == "_":
            return f"(void)({expression});"
        register = self.scope.register(name)
        if register is None:
            raise PtxError(f"{name} is not a register")
        variable, held = register
        if (held == "pred") != (type_ == "pred") or datatypes.width(held) < datatypes.width(type_):
            raise PtxError(f"{name} cannot hold .{type_}")
        if type_ in datatypes.FLOATS:
            return f"{variable} = bits({datatypes.computing(type_)}({expression}));"
        if type_ == "pred":
            return f"{variable} = {expression};"
        return f"{variable} = {datatypes.computing(type_)}({expression});"

    def pair(self, index: int) -> tuple[str, str | None]:
        """The two destinations of "a|b"; the second may be missing."""
        first, _, second = self.text(index).partition("|")
        return first.strip(), second.strip() or None


def _cpp_float(x: float) -> str:
    if x != x:
        return '__builtin_nan("")'
    if x in (float("inf"), float("-inf")):
        return "__builtin_inf()" if x > 0 else "-__builtin_inf()"
    return x.hex()
