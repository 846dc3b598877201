"""Integer instructions to C++; what opcodes such as add do with floats is in instructions_float.py."""

from . import datatypes
from .operation import Operation
from .parse import PtxError


def add_sub(op: Operation) -> str:
    sign = "+" if op.opcode == "add" else "-"
    a, b, type_ = op.value(1), op.value(2), op.type
    if op.flag("sat"):
        return op.assign(0, type_, f"clamped<{datatypes.computing(type_)}>(s128({a}) {sign} s128({b}))")
    unsigned = datatypes.unsigned(type_)
    if op.flag("cc"):
        carry = f"{unsigned}(a {sign} b) {'<' if sign == '+' else '>'} a"
        return f"const {unsigned} a = {a}, b = {b}; carry = {carry}; {op.assign(0, type_, f'a {sign} b')}"
    return op.assign(0, type_, f"{unsigned}({a}) {sign} {unsigned}({b})")


def add_sub_with_carry(op: Operation) -> str:
    sign = "+" if op.opcode == "addc" else "-"
    unsigned, width = datatypes.unsigned(op.type), datatypes.width(op.type)
    total = f"u128({unsigned}({op.value(1)})) {sign} u128({unsigned}({op.value(2)})) {sign} u128(carry)"
    out = f" carry = total >> {width} & 1;" if op.flag("cc") else ""
    return f"const u128 total = {total};{out} {op.assign(0, op.type, 'total')}"


def multiply(op: Operation) -> str:
    """mul, mad, madc, mul24, mad24: the low or high half of the product, or all of it; plus c."""
    type_, width = op.type, datatypes.width(op.type)
    part = op.one_of("lo", "hi", "wide")
    if part == "wide" and width == 64:
        raise PtxError("there is no product of 128 bits")
    signed = datatypes.is_signed(type_)
    whole = f"{'s' if signed else 'u'}{2 * width}"
    computed = f"u{max(width, 32)}" if part == "lo" else whole
    factors = [op.value(i) for i in (1, 2)]
    if op.opcode.endswith("24"):
        computed = "s64" if signed else "u64"
        factors = [f"s32(u32({a}) << 8) >> 8" if signed else f"u32({a}) & 0xffffffu" for a in factors]
    product = f"{computed}({factors[0]}) * {computed}({factors[1]})"
    if part == "hi":
        product = f"({product}) >> {16 if op.opcode.endswith('24') else width}"
    result = whole if part == "wide" else type_
    if op.opcode.startswith("mul"):
        return op.assign(0, result, product)
    return _plus(op, result, product)


def _plus(op: Operation, result: str, product: str) -> str:
    """The product plus the third operand, and the carry if it goes in or out."""
    if op.flag("sat"):
        return op.assign(0, result, f"clamped<s32>(s128({product}) + s128({op.value(3, result)}))")
    unsigned, c = datatypes.unsigned(result), op.value(3, result)
    carries_out = op.flag("cc")
    if op.opcode != "madc" and not carries_out:
        return op.assign(0, result, f"{unsigned}({product}) + {unsigned}({c})")
    total = f"u128({unsigned}({product})) + u128({unsigned}({c}))"
    if op.opcode == "madc":
        total += " + u128(carry)"
    out = f" carry = total >> {datatypes.width(result)} & 1;" if carries_out else ""
    return f"const u128 total = {total};{out} {op.assign(0, result, 'total')}"


def divide(op: Operation) -> str:
    name = "quotient" if op.opcode == "div" else "remainder_of"
    return op.assign(0, op.type, f"{name}<{datatypes.computing(op.type)}>({op.value(1)}, {op.value(2)})")


def minimum_maximum(op: Operation) -> str:
    name = "minimum" if op.opcode == "min" else "maximum"
    return op.assign(0, op.type, f"{name}<{datatypes.computing(op.type)}>({op.value(1)}, {op.value(2)})")


def negate(op: Operation) -> str:
    return op.assign(0, op.type, f"u64(0) - u64({op.value(1)})")


def absolute(op: Operation) -> str:
    a = op.value(1)
    return op.assign(0, op.type, f"{a} < 0 ? u64(0) - u64({a}) : u64({a})")


def absolute_difference(op: Operation) -> str:
    a, b = op.value(1), op.value(2)
    return op.assign(
        0, op.type, f"u64({op.value(3)}) + ({a} > {b} ? u64({a}) - u64({b}) : u64({b}) - u64({a}))"
    )


def logic(op: Operation) -> str:
    sign = {"and": "&", "or": "|", "xor": "^"}[op.opcode]
    return op.assign(0, op.type, f"{op.value(1)} {sign} {op.value(2)}")


def complement(op: Operation) -> str:
    return op.assign(0, op.type, f"{'!' if op.type == 'pred' else '~'}{op.value(1)}")


def logical_not(op: Operation) -> str:
    return op.assign(0, op.type, f"{op.value(1)} == 0")


def lop3(op: Operation) -> str:
    a, b, c, table = (op.value(i, "u32") for i in (1, 2, 3, 4))
    return op.assign(0, "b32", f"lop3({a}, {b}, {c}, {table})")


def shift(op: Operation) -> str:
    """shl, shr: by the width or more gives zero, or copies of the sign."""
    width, a = datatypes.width(op.type), op.value(1)
    by = f"const u32 by = {op.value(2, 'u32')}; "
    if op.opcode == "shr" and datatypes.is_signed(op.type):
        return by + op.assign(0, op.type, f"{a} >> (by > {width - 1} ? {width - 1} : by)")
    sign = "<<" if op.opcode == "shl" else ">>"
    return by + op.assign(0, op.type, f"by >= {width} ? 0 : {datatypes.unsigned(op.type)}({a}) {sign} by")


def funnel_shift(op: Operation) -> str:
    direction = "left" if op.one_of("l", "r") == "l" else "right"
    by = op.value(3, "u32")
    by = f"minimum(u32({by}), 32u)" if op.one_of("clamp", "wrap") == "clamp" else f"({by} & 31u)"
    return op.assign(0, "b32", f"funnel_{direction}({op.value(1, 'u32')}, {op.value(2, 'u32')}, {by})")


def permute(op: Operation) -> str:
    a, b, selectors = (op.value(i, "u32") for i in (1, 2, 3))
    return op.assign(0, "b32", f"permute_bytes({a}, {b}, {selectors})")


def extract_field(op: Operation) -> str:
    unsigned = datatypes.unsigned(op.type)
    signed = str(datatypes.is_signed(op.type)).lower()
    position, length = op.value(2, "u32"), op.value(3, "u32")
    width = datatypes.width(op.type)
    return op.assign(
        0, op.type, f"extract_bits({unsigned}({op.value(1)}), {position}, {length}, {width}, {signed})"
    )


def insert_field(op: Operation) -> str:
    position, length = op.value(3, "u32"), op.value(4, "u32")
    width = datatypes.width(op.type)
    return op.assign(0, op.type, f"insert_bits({op.value(1)}, {op.value(2)}, {position}, {length}, {width})")


def find_highest_bit(op: Operation) -> str:
    unsigned, a = datatypes.unsigned(op.type), op.value(1)
    if datatypes.is_signed(op.type):
        a = f"{a} < 0 ? ~{a} : {a}"
    amount = str(op.flag("shiftamt")).lower()
    return op.assign(0, "u32", f"highest_bit({unsigned}({a}), {datatypes.width(op.type)}, {amount})")


def reverse(op: Operation) -> str:
    return op.assign(0, op.type, f"reverse_bits({op.value(1)}, {datatypes.width(op.type)})")


def population(op: Operation) -> str:
    return op.assign(0, "u32", f"__builtin_popcountll({op.value(1)})")


def leading_zeros(op: Operation) -> str:
    return op.assign(0, "u32", f"count_leading_zeros({op.value(1)}, {datatypes.width(op.type)})")


def dot4(op: Operation) -> str:
    if len(op.types) != 2:
        raise PtxError("two types expected")
    signs = ", ".join(str(datatypes.is_signed(type_)).lower() for type_ in op.types)
    a, b, c = (op.value(i, "u32") for i in (1, 2, 3))
    return op.assign(0, "u32", f"dot_of_bytes({a}, {b}, {c}, {signs})")


TRANSLATORS = {
    **dict.fromkeys(("add", "sub"), add_sub),
    **dict.fromkeys(("addc", "subc"), add_sub_with_carry),
    **dict.fromkeys(("mul", "mad", "madc", "mul24", "mad24"), multiply),
    **dict.fromkeys(("div", "rem"), divide),
    **dict.fromkeys(("min", "max"), minimum_maximum),
    "neg": negate,
    "abs": absolute,
    "sad": absolute_difference,
    **dict.fromkeys(("and", "or", "xor"), logic),
    "not": complement,
    "cnot": logical_not,
    "lop3": lop3,
    **dict.fromkeys(("shl", "shr"), shift),
    "shf": funnel_shift,
    "prmt": permute,
    "bfe": extract_field,
    "bfi": insert_field,
    "bfind": find_highest_bit,
    "brev": reverse,
    "popc": population,
    "clz": leading_zeros,
    "dp4a": dot4,
}
