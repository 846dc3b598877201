"""Floating-point arithmetic to C++: f32, f64, and the 16-bit formats, alone or two in a register."""

from collections.abc import Callable

from . import datatypes
from .operation import Operation
from .parse import PtxError

ROUNDING = ("rn", "rz", "rm", "rp")


class _Float:
    """The operands and the result of an f32 or f64 instruction, with .ftz and .sat."""

    def __init__(self, op: Operation):
        self.op = op
        self.flushes = op.flag("ftz") and op.type == "f32"
        self.suffix = "f" if op.type == "f32" else ""

    def operand(self, index: int) -> str:
        value = self.op.value(index)
        return f"flush({value})" if self.flushes else value

    def result(self, expression: str) -> str:
        if self.op.flag("sat"):
            expression = f"saturated({expression})"
        return self.op.assign(0, self.op.type, f"flush({expression})" if self.flushes else expression)


def arithmetic(op: Operation) -> str:
    """add, sub, mul, fma, mad, div (also approximate), in the rounding mode that is asked for."""
    number = _Float(op)
    approximate = op.opcode == "div" and op.one_of("approx", "full", *ROUNDING)
    if approximate in ("approx", "full"):
        if op.type != "f32":
            raise PtxError("approximate for .f32 only")
        return number.result(f"div_{approximate}({number.operand(1)}, {number.operand(2)})")
    mode = op.one_of(*ROUNDING, default="rn")
    operands = [number.operand(i) for i in range(1, 4 if op.opcode in ("fma", "mad") else 3)]
    if op.opcode in ("fma", "mad"):
        exact = f"__builtin_fma{number.suffix}({', '.join(operands)})"
        directed = "multiply_add"
    else:
        sign, directed = {
            "add": ("+", "add"),
            "sub": ("-", "add"),
            "mul": ("*", "multiply"),
            "div": ("/", "divide"),
        }[op.opcode]
        exact = f"{operands[0]} {sign} {operands[1]}"
        if op.opcode == "sub" and mode != "rn":
            operands[1] = f"-{operands[1]}"
    return number.result(exact if mode == "rn" else f"{directed}({', '.join(operands)}, {mode})")


def minimum_maximum(op: Operation) -> str:
    number = _Float(op)
    name = ("minimum" if op.opcode == "min" else "maximum") + ("_nan" if op.flag("NaN") else "_number")
    return number.result(f"{name}({number.operand(1)}, {number.operand(2)})")


def sign(op: Operation) -> str:
    number = _Float(op)
    a = number.operand(1)
    return number.result(f"-{a}" if op.opcode == "neg" else f"__builtin_fabs{number.suffix}({a})")


def copy_sign(op: Operation) -> str:
    suffix = "f" if op.type == "f32" else ""
    return op.assign(0, op.type, f"__builtin_copysign{suffix}({op.value(2)}, {op.value(1)})")


def approximate_function(op: Operation) -> str:
    """ex2, lg2, sin, cos, tanh: in hardware approximate only."""
    if op.type != "f32" or not op.flag("approx"):
        raise PtxError(f"{op.opcode} is there as .approx.f32 only")
    number = _Float(op)
    return number.result(f"{op.opcode}_approx({number.operand(1)})")


def reciprocal_and_roots(op: Operation) -> str:
    number = _Float(op)
    a = number.operand(1)
    root = f"__builtin_sqrt{number.suffix}({a})"
    mode = op.one_of("approx", *ROUNDING)
    if mode == "approx" and op.type == "f32":
        return number.result(f"{op.opcode}_approx({a})")
    if mode == "approx":
        return _approximate_f64(op, a, root)
    one = "1.0f" if op.type == "f32" else "1.0"
    exact, directed = {
        "rcp": (f"{one} / {a}", f"divide({one}, {a}, {mode})"),
        "sqrt": (root, f"square_root({a}, {mode})"),
    }[op.opcode]
    return number.result(exact if mode == "rn" else directed)


def _approximate_f64(op: Operation, a: str, root: str) -> str:
    """With .ftz the upper half of the result, the lower one zero: a first guess for Newton. Else precise."""
    exact = f"1.0 / {a if op.opcode == 'rcp' else root}"
    upper_half = op.flag("ftz")
    if op.opcode == "sqrt" or (op.opcode == "rcp" and not upper_half):
        raise PtxError(f"there is no {op.opcode}.approx.f64")
    return op.assign(0, "b64", f"bits({exact}){' & ~0xffffffffull' if upper_half else ''}")


def classify(op: Operation) -> str:
    a = op.value(1)
    expression = {
        "finite": f"__builtin_isfinite({a})",
        "infinite": f"__builtin_isinf({a})",
        "number": f"{a} == {a}",
        "notanumber": f"{a} != {a}",
        "normal": f"__builtin_isnormal({a})",
        "subnormal": f"__builtin_isfinite({a}) && !__builtin_isnormal({a}) && {a} != 0",
    }
    return op.assign(0, "pred", expression[op.one_of(*expression)])


# 16 bits. Arithmetic goes through double, which has more than twice the digits: to round to it first changes
# nothing, but for a fused multiply-add, of which fused_for_16_bits takes care.


def each_half(op: Operation, operands: list[str], formula: Callable[..., str]) -> str:
    """The 16-bit results of a formula on the operands as double, packed if the type is."""
    name = op.type.removesuffix("x2")

    def element(shift: str) -> str:
        return formula(*(f"double({name}_to_float(u16({operand}{shift})))" for operand in operands))

    if op.type == name:
        return f"to_{name}({element('')})"
    return f"pack(to_{name}({element('')}), to_{name}({element(' >> 16')}))"


def half_arithmetic(op: Operation) -> str:
    op.ignore("rn")
    count = 3 if op.opcode in ("fma", "mad") else 2
    formulas: dict[str, Callable[..., str]] = {
        "add": "{0} + {1}".format,
        "sub": "{0} - {1}".format,
        "mul": "{0} * {1}".format,
        "fma": "fused_for_16_bits({0}, {1}, {2})".format,
        "mad": "fused_for_16_bits({0}, {1}, {2})".format,
    }
    if op.opcode in ("min", "max"):
        name = ("minimum" if op.opcode == "min" else "maximum") + ("_nan" if op.flag("NaN") else "_number")
        formulas[op.opcode] = (name + "({0}, {1})").format
    formula = formulas[op.opcode]
    saturates, clips = op.flag("sat"), op.flag("relu")

    def after(*values: str) -> str:
        result = formula(*values)
        if saturates:
            result = f"saturated({result})"
        return f"maximum_number({result}, 0.0)" if clips else result

    names = ["a", "b", "c"][:count]
    values = ", ".join(f"{name} = {op.value(i + 1)}" for i, name in enumerate(names))
    return (
        f"const {datatypes.unsigned(op.type)} {values}; {op.assign(0, op.type, each_half(op, names, after))}"
    )


def half_sign(op: Operation) -> str:
    mask = 0x8000 if datatypes.width(op.type) == 16 else 0x80008000
    return op.assign(
        0, op.type, f"{op.value(1)} ^ {mask}u" if op.opcode == "neg" else f"{op.value(1)} & ~{mask}u"
    )


def half_function(op: Operation) -> str:
    if not op.flag("approx"):
        raise PtxError(f"{op.opcode} is there as .approx only")
    name = op.type.removesuffix("x2")
    # ex2 of bf16 is defined with .ftz only; its range of exponents is that of f32.
    flushed = "flush(float({}))" if op.flag("ftz") and name == "bf16" else "{}"

    def formula(value: str) -> str:
        return flushed.format(f"{op.opcode}_approx_{name}({flushed.format(value)})")

    result = each_half(op, ["a"], formula)
    return f"const {datatypes.unsigned(op.type)} a = {op.value(1)}; {op.assign(0, op.type, result)}"


def pair_arithmetic(op: Operation) -> str:
    """Two f32 in a register of 64 bits."""
    flushes = op.flag("ftz")
    mode = op.one_of(*ROUNDING, default="rn")
    if mode != "rn":
        raise PtxError(f"the modifier .{mode} is not supported here")
    names = ["a", "b", "c"][: 3 if op.opcode == "fma" else 2]
    formula = {
        "add": "{0} + {1}",
        "sub": "{0} - {1}",
        "mul": "{0} * {1}",
        "fma": "__builtin_fmaf({0}, {1}, {2})",
    }[op.opcode]

    def element(shift: str) -> str:
        values = [f"as_float(u32({name}{shift}))" for name in names]
        if flushes:
            return f"flush({formula.format(*(f'flush({value})' for value in values))})"
        return formula.format(*values)

    values = ", ".join(f"{name} = {op.value(i + 1)}" for i, name in enumerate(names))
    packed = f"pack_floats({element('')}, {element(' >> 32')})"
    return f"const u64 {values}; {op.assign(0, op.type, packed)}"


TRANSLATORS = {
    **dict.fromkeys(("add", "sub", "mul", "fma", "mad", "div"), arithmetic),
    **dict.fromkeys(("min", "max"), minimum_maximum),
    **dict.fromkeys(("neg", "abs"), sign),
    "copysign": copy_sign,
    **dict.fromkeys(("ex2", "lg2", "sin", "cos", "tanh"), approximate_function),
    **dict.fromkeys(("rcp", "sqrt", "rsqrt"), reciprocal_and_roots),
    "testp": classify,
}

HALF_TRANSLATORS = {
    **dict.fromkeys(("add", "sub", "mul", "fma", "mad", "min", "max"), half_arithmetic),
    **dict.fromkeys(("neg", "abs"), half_sign),
    **dict.fromkeys(("ex2", "tanh"), half_function),
}

PAIR_TRANSLATORS = dict.fromkeys(("add", "sub", "mul", "fma"), pair_arithmetic)
