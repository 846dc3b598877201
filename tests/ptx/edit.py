"""Barriers in PTX text: where they are, and the text without one of them.

A script that takes out the barriers of a kernel one by one shows whether tests notice a missing one.
"""

from .parse import Instruction, parse


def _found(ptx_text: str, name: str | None) -> list[Instruction]:
    functions = parse(ptx_text).functions
    if name is not None and name not in functions:
        raise ValueError(f"name {name!r} is not in the module, which has {', '.join(functions)}")
    bodies = [function.body for key, function in functions.items() if name in (None, key)]
    instructions = [statement for body in bodies for statement in body if isinstance(statement, Instruction)]
    return [instruction for instruction in instructions if instruction.opcode in ("bar", "barrier")]


def barriers(ptx_text: str, name: str | None = None) -> list[int]:
    """The lines of all barriers (bar.sync, bar.red, bar.warp.sync and their like), in order.

    name: of a kernel or function, to look there only.
    """
    return [instruction.line for instruction in _found(ptx_text, name)]


def without_barrier(ptx_text: str, n: int, name: str | None = None) -> str:
    """The text less the n-th, from 0, of the barriers that barriers() lists; every line stays where it is.

    Raises IndexError if there are fewer, ValueError for bar.red, whose result something needs.
    """
    barrier = _found(ptx_text, name)[n]
    if "red" in barrier.modifiers:
        raise ValueError(f"barrier {n} also computes something: {barrier.text}")
    start, end = barrier.span
    return ptx_text[:start] + "\n" * ptx_text.count("\n", start, end) + ptx_text[end:]
