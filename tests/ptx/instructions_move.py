"""Comparison, selection, conversion and moves between registers to C++."""

from . import datatypes
from .instructions_float import ROUNDING
from .operation import Operation
from .parse import PtxError

_INTEGER_COMPARISONS = {
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    **dict.fromkeys(("lt", "lo"), "{0} < {1}"),
    **dict.fromkeys(("le", "ls"), "{0} <= {1}"),
    **dict.fromkeys(("gt", "hi"), "{0} > {1}"),
    **dict.fromkeys(("ge", "hs"), "{0} >= {1}"),
}
_FLOAT_COMPARISONS = {  # false for NaN, but for those that end in u and nan
    "eq": "{0} == {1}",
    "ne": "{0} < {1} || {0} > {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "equ": "!({0} < {1} || {0} > {1})",
    "neu": "{0} != {1}",
    "ltu": "!({0} >= {1})",
    "leu": "!({0} > {1})",
    "gtu": "!({0} <= {1})",
    "geu": "!({0} < {1})",
    "num": "{0} == {0} && {1} == {1}",
    "nan": "{0} != {0} || {1} != {1}",
}
_COMBINATIONS = {"and": "&", "or": "|", "xor": "^"}


def _comparison(op: Operation) -> str:
    """The comparison of setp and set, not yet combined with a predicate."""
    type_ = op.type
    if type_ in ("f16x2", "bf16x2"):
        raise PtxError("comparison of two packed values")
    a, b = op.value(1, type_), op.value(2, type_)
    is_float = type_ in datatypes.FLOATS or type_ in datatypes.HALVES
    if type_ in datatypes.HALVES:
        a, b = f"{type_}_to_float({a})", f"{type_}_to_float({b})"
    if op.flag("ftz"):
        a, b = f"flush({a})", f"flush({b})"
    comparisons = _FLOAT_COMPARISONS if is_float else _INTEGER_COMPARISONS
    comparison = comparisons[op.one_of(*comparisons)].format("a", "b")
    return f"const auto a = {a}, b = {b}; const bool c = {comparison};"


def set_predicate(op: Operation) -> str:
    """setp d|n, a, b, p: d is (a ? b) combined with p, n is !(a ? b) combined with p."""
    combination = op.one_of(*_COMBINATIONS, default="")
    result, negated = op.pair(0)
    comparison = _comparison(op)
    if combination:
        sign = _COMBINATIONS[combination]
        comparison += f" const bool p = {op.value(3, 'pred')};"
        whole, whole_negated = f"c {sign} p", f"!c {sign} p"
    else:
        whole, whole_negated = "c", "!c"
    code = f"{comparison} {op.assign_to(result, 'pred', whole)}"
    return code + (f" {op.assign_to(negated, 'pred', whole_negated)}" if negated else "")


def set_value(op: Operation) -> str:
    """set: all ones, or 1.0, where setp would give true."""
    combination = op.one_of(*_COMBINATIONS, default="")
    comparison = _comparison(op)
    whole = f"(c {_COMBINATIONS[combination]} {op.value(3, 'pred')})" if combination else "c"
    if len(op.types) != 2 or op.types[0] not in ("u32", "s32", "f32"):
        raise PtxError("set gives .u32, .s32 or .f32")
    true, false = ("1.0f", "0.0f") if op.types[0] == "f32" else ("-1", "0")
    return f"{comparison} {op.assign(0, op.types[0], f'{whole} ? {true} : {false}')}"


def select(op: Operation) -> str:
    bits = f"b{datatypes.width(op.type)}"
    return op.assign(0, bits, f"{op.value(3, 'pred')} ? {op.value(1, bits)} : {op.value(2, bits)}")


def select_by_sign(op: Operation) -> str:
    if len(op.types) != 2:
        raise PtxError("two types expected")
    sign = op.value(3, op.types[1])
    if op.flag("ftz"):
        sign = f"flush({sign})"
    bits = f"b{datatypes.width(op.types[0])}"
    return op.assign(0, bits, f"{sign} >= 0 ? {op.value(1, bits)} : {op.value(2, bits)}")


def move(op: Operation) -> str:
    type_ = op.type
    if type_ == "pred":
        return op.assign(0, "pred", op.value(1))
    width = datatypes.width(type_)
    if op.is_vector(0):  # taken apart, lowest part first
        names = op.vector(0)
        part = width // len(names)
        code = f"const u{width} whole = {op.value(1, f'b{width}')};"
        for i, name in enumerate(names):
            code += f" {op.assign_to(name, f'b{part}', f'whole >> {part * i}')}"
        return code
    if op.is_vector(1):
        values = op.vector(1)
        part = width // len(values)
        parts = [
            f"u{width}({op.value_of(value, f'b{part}')}) << {part * i}" for i, value in enumerate(values)
        ]
        return op.assign(0, f"b{width}", " | ".join(parts))
    return op.assign(0, f"b{width}", op.value(1, f"b{width}"))


# Conversion

_TO_INTEGRAL = {"rni": "rn", "rzi": "rz", "rmi": "rm", "rpi": "rp"}


def convert(op: Operation) -> str:
    if len(op.types) != 2:
        raise PtxError("a conversion between two types expected")
    to, source = op.types
    if to in ("f16x2", "bf16x2"):
        return _pack_two(op, to.removesuffix("x2"), source)
    if source in ("f16x2", "bf16x2"):
        raise PtxError("conversion of two packed values")
    from_float = not datatypes.is_integer(source)
    to_float = not datatypes.is_integer(to)
    if from_float and not to_float:
        return _float_to_integer(op, to, source)
    if not from_float and not to_float:
        value = op.value(1, source)
        if op.flag("sat"):
            value = f"clamped<{datatypes.computing(to)}>({value})"
        return op.assign(0, to, value)
    return _to_float(op, to, source, from_float)


def _source(op: Operation, type_: str, flushes: bool) -> str:
    """A floating-point source as float or double."""
    value = op.value(1, type_)
    if type_ in datatypes.HALVES:
        return f"{type_}_to_float({value})"
    return f"flush({value})" if flushes and type_ == "f32" else value


def _pack_two(op: Operation, to: str, source: str) -> str:
    if source != "f32":
        raise PtxError("conversion to two packed values from .f32 only")
    mode = op.one_of("rn", "rz")
    clips, flushes = op.flag("relu"), op.flag("ftz")
    high, low = (op.value(i, source) for i in (1, 2))
    if flushes:
        high, low = f"flush({high})", f"flush({low})"
    if clips:
        high, low = f"maximum_number({high}, 0.0f)", f"maximum_number({low}, 0.0f)"
    return op.assign(0, "b32", f"pack(to_{to}({low}, {mode}), to_{to}({high}, {mode}))")


def _float_to_integer(op: Operation, to: str, source: str) -> str:
    mode = _TO_INTEGRAL[op.one_of(*_TO_INTEGRAL)]
    op.ignore("sat")  # it saturates anyway
    value = _source(op, source, op.flag("ftz"))
    # PTX ISA, cvt: NaN gives 0, but the number with the top bit alone where 64 bits are involved.
    nan = f"{1 << (datatypes.width(to) - 1)}ull" if "64" in (source + to) else "0"
    return op.assign(0, to, f"to_integer<{datatypes.computing(to)}>(to_integral({value}, {mode}), {nan})")


def _to_float(op: Operation, to: str, source: str, from_float: bool) -> str:
    flushes, saturates, clips = op.flag("ftz"), op.flag("sat"), op.flag("relu")
    integral = op.one_of(*_TO_INTEGRAL, default="")
    mode = op.one_of(*ROUNDING, default="rn")
    value = _source(op, source, flushes) if from_float else op.value(1, source)
    if integral:
        value = f"to_integral({value}, {_TO_INTEGRAL[integral]})"
    if saturates:
        value = f"saturated({value})"
    if clips:
        value = f"maximum_number(double({value}), 0.0)"
    if to in datatypes.HALVES:
        return op.assign(0, to, f"to_{to}({value}, {mode})")
    if mode != "rn":
        given = "double" if from_float else "s64" if datatypes.is_signed(source) else "u64"
        value = (
            f"to_{datatypes.computing(to)}({given}({value}), {mode})"
            if (to, given) != ("f64", "double")
            else value
        )
    result = f"{datatypes.computing(to)}({value})"
    return op.assign(0, to, f"flush({result})" if flushes and to == "f32" else result)


TRANSLATORS = {
    "setp": set_predicate,
    "set": set_value,
    "selp": select,
    "slct": select_by_sign,
    "mov": move,
    "cvt": convert,
}
