"""A kernel and the device functions that it calls, from PTX to C++.

The C++ depends only on what the kernel does: registers are numbered by first use, statements by position. The
same code for two architectures, or with other comments and names, gives the same C++, and is compiled once.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import (
    datatypes,
    instructions_control,
    instructions_float,
    instructions_integer,
    instructions_memory,
    instructions_move,
)
from .operation import Operation, Symbol
from .parse import (
    BranchTargets,
    Function,
    Instruction,
    Label,
    Module,
    Parameter,
    PtxError,
    Registers,
    ScopeEnd,
    ScopeStart,
    Variable,
)

_ANY_TYPE: dict[str, Callable[[Operation], str]] = {
    **instructions_move.TRANSLATORS,
    **instructions_memory.TRANSLATORS,
    **instructions_control.TRANSLATORS,
}
_OF_INTEGERS = instructions_integer.TRANSLATORS
_BY_TYPE = {
    **dict.fromkeys(datatypes.FLOATS, instructions_float.TRANSLATORS),
    **dict.fromkeys(datatypes.HALVES, instructions_float.HALF_TRANSLATORS),
    datatypes.PAIR: instructions_float.PAIR_TRANSLATORS,
}
_STACK = 128 * 1024  # bytes for a thread; a function's registers come on top


@dataclass(frozen=True)
class Translation:
    """C++ source; where every numbered statement stands; what a launch needs to know of the kernel.

    directives: of the kernel, such as .maxntid, with their numbers. stack_size: of a thread, in bytes.
    """

    source: str
    statements: tuple[tuple[int, str], ...]
    parameters: tuple[Parameter, ...]
    directives: dict[str, tuple[int, ...]]
    stack_size: int


def translate(module: Module, name: str) -> Translation:
    """Raises PtxError, with the line, for what is not supported."""
    return _ModuleTranslation(module).kernel(module.functions[name])


def _translator(op: Operation) -> Callable[[Operation], str]:
    kind = op.types[-1] if op.types else ""
    translator = _ANY_TYPE.get(op.opcode) or _BY_TYPE.get(kind, _OF_INTEGERS).get(op.opcode)
    if translator is None:
        raise PtxError("this instruction is not supported")
    return translator


class _ModuleTranslation:
    """What a module's functions share: variables, the numbering of functions and statements."""

    def __init__(self, module: Module):
        self.module = module
        self.statements: list[tuple[int, str]] = []
        self.symbols: dict[str, Symbol] = {}
        self.declarations: list[str] = []
        self.ranges: list[str] = []
        self.shared_size = 0
        self.dynamic_alignment = 16
        self.functions: dict[str, str] = {}
        self.under_way: list[str] = []
        self.bodies: list[str] = []
        self.local_size = 0
        self.registers = 0

    def kernel(self, function: Function) -> Translation:
        self.add_function(function)
        static = self.shared_size
        dynamic = -(-static // self.dynamic_alignment) * self.dynamic_alignment
        program = f"function_0, {static}, {dynamic}, {self.local_size}, variables, {len(self.ranges)}"
        source = "\n".join(
            [
                '#include "kernel.h"',
                *self.declarations,
                *self.bodies,
                f"static const Range variables[] = {{{', '.join([*self.ranges, '{}'])}}};",
                f"static const Program program = {{{program}}};",
                'extern "C" __attribute__((visibility("default"))) bool run(LaunchArguments *arguments) {',
                "    return launch(arguments, &program);",
                "}",
                "",
            ]
        ).replace("DYNAMIC_SHARED", f"{dynamic}u")
        return Translation(
            source,
            tuple(self.statements),
            function.parameters,
            function.directives,
            _STACK + 32 * self.registers,
        )

    def add_function(self, function: Function) -> str:
        """The C++ name of a function, translated when it is first asked for."""
        if function.name in self.under_way:
            raise PtxError(f"line {function.line}: {function.name} calls itself")
        if function.name not in self.functions:
            name = self.functions[function.name] = f"function_{len(self.functions)}"
            self.under_way.append(function.name)
            body = _FunctionTranslation(self, function)
            code = body.translate()
            self.under_way.pop()
            self.local_size += body.local_size
            self.registers += len(body.declared)
            arguments = [f"u8 *{argument}" for argument in body.arguments]
            self.bodies.append(f"static void {name}({', '.join(['Thread *T', *arguments])}) {{\n{code}\n}}")
        return self.functions[function.name]

    def symbol(self, name: str) -> Symbol | None:
        """A variable of the module, laid out when it is first asked for."""
        if name not in self.symbols and name in self.module.variables:
            self.symbols[name] = self.lay_out(self.module.variables[name])
        return self.symbols.get(name)

    def lay_out(self, variable: Variable) -> Symbol:
        """A place for a variable in shared, global or constant memory."""
        if variable.space == "shared":
            if variable.dynamic:
                self.dynamic_alignment = max(self.dynamic_alignment, variable.alignment)
                return Symbol("shared", "DYNAMIC_SHARED", 0)
            offset = -(-self.shared_size // variable.alignment) * variable.alignment
            self.shared_size = offset + variable.size
            return Symbol("shared", f"{offset}u", variable.size)
        if variable.space not in ("global", "const") or variable.dynamic:
            raise PtxError(f"line {variable.line}: the variable {variable.name} is not supported here")
        name = f"variable_{len(self.ranges)}"
        contents = ", ".join(map(str, (variable.contents or b"").rstrip(b"\0")))
        self.declarations.append(f"alignas(128) static u8 {name}[{max(1, variable.size)}] = {{{contents}}};")
        writable = int(variable.space == "global")
        self.ranges.append(f"{{u64({name}), u64({name}) + {variable.size}, {writable}}}")
        return Symbol(variable.space, name, variable.size)


class _FunctionTranslation:
    """One function. Registers of inner scopes are declared in front with the others, under other names."""

    def __init__(self, module: _ModuleTranslation, function: Function):
        self.module = module
        self.function = function
        self.position = 0
        self.scopes: list[int] = [0]
        self.scope_count = 1
        self.types: dict[tuple[int, str], str] = {}
        self.declared: dict[tuple[int, str], str] = {}
        self.variables: dict[tuple[int, str], Symbol] = {}
        self.param_variables: list[str] = []
        self.local_size = 0
        self.labels = self.find_labels()
        self.arguments: list[str] = []
        for parameter in function.results + function.parameters:
            address = f"params + {parameter.offset}"
            if not function.is_kernel:
                address = f"a{len(self.arguments)}"
                self.arguments.append(address)
            self.variables[0, parameter.name] = Symbol("param", address, parameter.size)

    def walk(self) -> Iterator[object]:
        """The statements, with self.scopes and self.position kept up to date."""
        self.scopes, self.scope_count = [0], 1
        for position, statement in enumerate(self.function.body):
            self.position = position
            if isinstance(statement, ScopeStart):
                self.scopes.append(self.scope_count)
                self.scope_count += 1
            elif isinstance(statement, ScopeEnd):
                self.scopes.pop()
            yield statement

    def find_labels(self) -> dict[tuple[int, str], tuple[str, int]]:
        """The C++ name and the position of every label, by scope."""
        labels: dict[tuple[int, str], tuple[str, int]] = {}
        self.targets: dict[str, tuple[str, ...]] = {}
        for statement in self.walk():
            if isinstance(statement, Label):
                labels[self.scopes[-1], statement.name] = f"label_{len(labels)}", self.position
            if isinstance(statement, BranchTargets):
                self.targets[statement.name] = statement.labels
        return labels

    def translate(self) -> str:
        code: list[str] = []
        block: list[str] = []  # instructions that are executed together, so that they are counted together

        def end_block() -> None:
            if block:
                code.append(f"T->instructions += {len(block)};")
                code.extend(block)
                block.clear()

        for statement in self.walk():
            if isinstance(statement, Registers):
                self.types.update({(self.scopes[-1], name): statement.type for name in statement.names})
            elif isinstance(statement, Variable):
                self.add_variable(statement)
            elif isinstance(statement, Label):
                end_block()
                code.append(f"{self.labels[self.scopes[-1], statement.name][0]}:;")
            elif isinstance(statement, Instruction):
                block.append(self.instruction(statement))
                if statement.opcode in instructions_control.ENDS_OF_BLOCKS:
                    end_block()
        end_block()
        return "\n".join([*self.opening(), *code])

    def opening(self) -> Iterator[str]:
        """Declarations, in front of all jumps. Registers start with bits that mean nothing."""
        if self.function.is_kernel:
            yield "const u8 *const params = block.params;"
        if self.local_size:
            yield f"const LocalFrame frame(T, {self.local_size});"
        yield from self.param_variables
        yield "bool carry = false; (void)carry;"
        by_type: dict[str, list[str]] = {}
        for key, variable in self.declared.items():
            by_type.setdefault(datatypes.unsigned(self.types[key]), []).append(variable)
        for type_, names in by_type.items():
            initial = "false" if type_ == "bool" else f"{type_}(0xdeadbeefdeadbeefull)"
            yield f"{type_} {', '.join(f'{name} = {initial}' for name in names)};"

    def instruction(self, instruction: Instruction) -> str:
        number = len(self.module.statements)
        self.module.statements.append((instruction.line, instruction.text))
        try:
            op = Operation(self, instruction, number)
            code = _translator(op)(op)
            op.finish()
            if instruction.guard:
                negated, predicate = instruction.guard
                code = f"if ({op.value_of('!' * negated + predicate, 'pred')}) {{ {code} }}"
        except (PtxError, KeyError, ValueError, IndexError) as error:
            if str(error).startswith("line "):
                raise
            raise PtxError(f'line {instruction.line}: "{instruction.text}": {error}') from error
        return f"{{ {code} }}"

    def add_variable(self, variable: Variable) -> None:
        key = self.scopes[-1], variable.name
        if variable.space == "local":
            offset = -(-self.local_size // max(16, variable.alignment)) * max(16, variable.alignment)
            self.local_size = -(-(offset + variable.size) // 16) * 16
            self.variables[key] = Symbol("local", f"frame.memory + {offset}", variable.size)
        elif variable.space == "param":
            name = f"param_{len(self.param_variables)}"
            self.param_variables.append(f"alignas(16) u8 {name}[{variable.size}];")
            self.variables[key] = Symbol("param", name, variable.size)
        else:
            self.variables[key] = self.module.lay_out(variable)

    # What an Operation asks for

    def register(self, name: str) -> tuple[str, str] | None:
        for scope in reversed(self.scopes):
            key = scope, name
            if key in self.types:
                variable = self.declared.setdefault(key, f"v{len(self.declared)}")
                return variable, self.types[key]
        return None

    def symbol(self, name: str) -> Symbol | None:
        for scope in reversed(self.scopes):
            if (scope, name) in self.variables:
                return self.variables[scope, name]
        return self.module.symbol(name)

    def label(self, name: str) -> tuple[str, bool]:
        for scope in reversed(self.scopes):
            if (scope, name) in self.labels:
                label, position = self.labels[scope, name]
                return label, position <= self.position
        raise PtxError(f"no label {name}")

    def branch_targets(self, name: str) -> tuple[str, ...]:
        return self.targets[name]

    def call(self, name: str, arguments: tuple[str, ...]) -> str:
        function = self.module.module.functions.get(name)
        if function is None:
            raise PtxError(f"no function {name} in the module")
        wanted = function.results + function.parameters
        if len(arguments) != len(wanted):
            raise PtxError(f"{len(wanted)} arguments and results expected, {len(arguments)} given")
        addresses = ["T"]
        for parameter, argument in zip(wanted, arguments, strict=True):
            variable = self.symbol(argument)
            if variable is None or variable.space != "param" or variable.size < parameter.size:
                raise PtxError(f"{argument} is not a .param variable of {parameter.size} bytes")
            addresses.append(f"(u8 *)({variable.address})")
        return f"{self.module.add_function(function)}({', '.join(addresses)});"


def line_of(translation: Translation, message: str) -> str:
    """A message of the runtime with the lines and the text of the statements that it numbers."""

    def statement(match: re.Match[str]) -> str:
        line, text = translation.statements[int(match[1])]
        return f'line {line} "{text}"'

    return re.sub(r"\{(\d+)\}", statement, message)
