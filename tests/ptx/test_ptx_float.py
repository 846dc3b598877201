"""Floating-point arithmetic and conversions against exact rational arithmetic, rounded once."""

from fractions import Fraction

import numpy as np
import pytest

from .exact import BF16, F16, F32, F64, Format, root
from .snippets import run_each

FORMATS = {"f16": F16, "bf16": BF16, "f32": F32, "f64": F64}
MODES = ("rn", "rz", "rm", "rp")
COUNT = 400


def operands_of(format_: Format, seed: int) -> np.ndarray:
    """Finite operands (COUNT, 3): any bits; numbers of one size; c near -a*b, so that sums cancel; simple."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 1 << format_.width, (COUNT, 3), np.uint64, endpoint=False)
    bias = -format_.least + 1
    near = generator.integers(bias - 4, bias + 4, (COUNT, 3), endpoint=True).astype(np.uint64)
    one_size = rows & ~np.uint64(format_.infinity) | near << np.uint64(format_.fraction)
    rows[COUNT // 4 :] = one_size[COUNT // 4 :]
    simple = [format_.rounded(Fraction(k, 8)) for k in range(-20, 20)]
    rows[-60:] = generator.choice(np.array(simple, np.uint64), (60, 3))
    # 7 * 37 = 259 is a tie in bf16, which c, however small, breaks.
    for row, c in zip(rows[-2:], (1, -1), strict=True):
        row[:] = [format_.rounded(x) for x in (Fraction(7), Fraction(37), c * Fraction(2) ** format_.least)]
    for row in rows[COUNT // 4 : COUNT // 2]:
        row[2] = format_.rounded(-format_.value(int(row[0])) * format_.value(int(row[1])))
    finite = [[int(x) if format_.is_finite(int(x)) else format_.infinity - 1 for x in row] for row in rows]
    return np.array(finite, np.uint64)


def flushed(format_, bits):
    return bits if bits & format_.infinity else bits & 1 << (format_.width - 1)


FORMULAS = {
    "add": lambda a, b, c: a + b,
    "sub": lambda a, b, c: a - b,
    "mul": lambda a, b, c: a * b,
    "fma": lambda a, b, c: a * b + c,
    "div": lambda a, b, c: a / b if b else None,
    "rcp": lambda a, b, c: 1 / a if a else None,
    "sqrt": lambda a, b, c: root(a) if a >= 0 else None,
    "min": lambda a, b, c: min(a, b),
    "max": lambda a, b, c: max(a, b),
    "neg": lambda a, b, c: -a,
    "abs": lambda a, b, c: abs(a),
}
SOURCES = {"fma": "abc", "rcp": "a", "sqrt": "a", "neg": "a", "abs": "a"}


def arithmetic(type_):
    """The instructions of a type: (opcode, rounding mode or "", other modifiers)."""
    if type_ in ("f16", "bf16"):
        found = [(opcode, "", "") for opcode in ("add", "sub", "mul", "min", "max", "neg", "abs")] + [
            ("fma", "rn", "")
        ]
        if type_ == "f16":
            found += [("add", "", ".sat"), ("fma", "rn", ".relu")]
        return found
    found = [
        (opcode, mode, "") for opcode in ("add", "sub", "mul", "fma", "div", "rcp", "sqrt") for mode in MODES
    ]
    found += [(opcode, "", "") for opcode in ("add", "mul", "min", "max", "neg", "abs")]
    if type_ == "f32":
        flushing = ("add", "sub", "mul", "fma", "div", "rcp", "sqrt")
        found += [(opcode, "rn", ".ftz") for opcode in flushing] + [("max", "", ".ftz")]
        found += [("add", "rn", ".sat"), ("fma", "rz", ".ftz.sat")]
    return found


def instruction(type_, opcode, mode, others):
    width = FORMATS[type_].width
    sources = ", ".join(f"{name}{width}" for name in SOURCES.get(opcode, "ab"))
    return f"{opcode}{f'.{mode}' if mode else ''}{others}.{type_} d{width}, {sources}"


def truth(format_, opcode, mode, others, row):
    """The bits of the result, or None where it is no finite number's business."""
    bits = [flushed(format_, int(x)) if ".ftz" in others else int(x) for x in row]
    exact = FORMULAS[opcode](*map(format_.value, bits))
    if exact is None:
        return None
    if ".sat" in others:
        exact = min(max(exact, Fraction(0)), Fraction(1))
    if ".relu" in others:
        exact = max(exact, Fraction(0))
    result = format_.rounded(exact, mode or "rn")
    return flushed(format_, result) if ".ftz" in others else result


def same(format_, got, want):
    """Equal bits, or two zeros: the sign of an exact zero is tested on its own."""
    return got == want or (got | want) << 1 & ((1 << format_.width) - 1) == 0


@pytest.fixture(scope="module", params=FORMATS)
def arithmetic_results(request):
    type_ = request.param
    operands = operands_of(FORMATS[type_], 7)
    listed = arithmetic(type_)
    return (
        type_,
        operands,
        dict(zip(listed, run_each([instruction(type_, *i) for i in listed], operands), strict=True)),
    )


def test_arithmetic_is_rounded_once(arithmetic_results):
    type_, operands, results = arithmetic_results
    format_ = FORMATS[type_]
    for key, got in results.items():
        wrong = []
        for row, bits in zip(operands, got, strict=True):
            want = truth(format_, *key, row)
            if want is not None and not same(format_, int(bits), want):
                wrong.append([hex(int(x)) for x in row] + [f"{int(bits):#x}, expected {want:#x}"])
        assert not wrong, (instruction(type_, *key), wrong[:3])


@pytest.mark.parametrize("type_", ["f16x2", "bf16x2", "f32x2"])
def test_packed_arithmetic_is_that_of_its_parts(type_):
    part = FORMATS[type_.removesuffix("x2")]
    low, high = operands_of(part, 1), operands_of(part, 2)
    packed = low | high << np.uint64(part.width)
    names = ", ".join(f"{name}{2 * part.width}" for name in "dabc")
    instructions = {f"fma.rn.{type_} {names}": "fma"}
    instructions |= {f"{op}.{type_} {names[: names.rindex(',')]}": op for op in ("add", "sub", "mul")}
    for text, got in zip(instructions, run_each(instructions, packed), strict=True):
        for shift, operands in ((0, low), (part.width, high)):
            wanted = [truth(part, instructions[text], "rn", "", row) for row in operands]
            halves = [int(bits) >> shift & ((1 << part.width) - 1) for bits in got]
            assert all(same(part, half, want) for half, want in zip(halves, wanted, strict=True)), text


SPECIAL = [0.0, -0.0, 1.0, -2.5, 1e-40, -1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_infinities_and_nan(dtype):
    type_, width = ("f32", 32) if dtype is np.float32 else ("f64", 64)
    values = np.array([(a, b, c) for a in SPECIAL for b in SPECIAL for c in (0.0, -0.0, 1.0, np.inf)], dtype)
    a, b, _ = values.T
    with np.errstate(all="ignore"):
        expected = {
            f"add.rn.{type_} d{width}, a{width}, b{width}": a + b,
            f"sub.rn.{type_} d{width}, a{width}, b{width}": a - b,
            f"mul.rn.{type_} d{width}, a{width}, b{width}": a * b,
            f"div.rn.{type_} d{width}, a{width}, b{width}": a / b,
            f"sqrt.rn.{type_} d{width}, a{width}": np.sqrt(a),
            f"min.{type_} d{width}, a{width}, b{width}": np.fmin(a, b),
            f"max.{type_} d{width}, a{width}, b{width}": np.fmax(a, b),
            f"min.NaN.{type_} d{width}, a{width}, b{width}": np.minimum(a, b),
            f"max.NaN.{type_} d{width}, a{width}, b{width}": np.maximum(a, b),
            f"copysign.{type_} d{width}, b{width}, a{width}": np.copysign(a, b),
        }
        comparisons = {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}
    unordered = np.isnan(a) | np.isnan(b)
    comparisons["ne"] = comparisons["ne"] & ~unordered
    comparisons |= {f"{name}u": result | unordered for name, result in comparisons.items()}
    comparisons |= {"num": ~unordered, "nan": unordered}
    tests = {
        "finite": np.isfinite(a),
        "infinite": np.isinf(a),
        "number": ~np.isnan(a),
        "notanumber": np.isnan(a),
    }
    tests["subnormal"] = (a != 0) & (np.abs(a) < np.finfo(dtype).tiny)
    tests["normal"] = tests["finite"] & (a != 0) & ~tests["subnormal"]
    predicates = {
        f"setp.{name}.{type_} q, a{width}, b{width}": result for name, result in comparisons.items()
    }
    predicates |= {f"testp.{name}.{type_} q, a{width}": result for name, result in tests.items()}
    unsigned = np.uint32 if width == 32 else np.uint64
    got = run_each([*expected, *predicates], values.view(unsigned).astype(np.uint64))
    for (text, want), bits in zip(expected.items(), got, strict=False):
        result = bits.astype(unsigned).view(dtype)
        np.testing.assert_array_equal(result, want, text)
        if text[:3] not in ("min", "max"):  # NumPy does not say which of two zeros is less
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(result[numbers]), np.signbit(want[numbers]), text)
        if width == 32 and "copysign" not in text:
            assert set(bits[np.isnan(want)]) <= {0x7FFFFFFF}, text
    for (text, want), bits in zip(predicates.items(), got[len(expected) :], strict=True):
        np.testing.assert_array_equal(bits.astype(bool), want, text)


def test_minimum_of_two_zeros_is_the_negative_one():
    zeros = np.array([[0, 0x80000000, 0], [0x80000000, 0, 0]], np.uint64)
    low, high = run_each(["min.f32 d32, a32, b32", "max.f32 d32, a32, b32"], zeros)
    assert list(low) == [0x80000000] * 2 and list(high) == [0, 0]


def test_every_f16_is_read_and_written():
    bits = np.arange(65536, dtype=np.uint64)
    operands = np.stack([bits] * 3, 1)
    wide, back, bf16 = run_each(
        ["cvt.f32.f16 d32, a16", "cvt.f32.f16 d32, a16; cvt.rn.f16.f32 d16, d32", "cvt.f32.bf16 d32, a16"],
        operands,
    )
    halves = bits.astype(np.uint16).view(np.float16)
    np.testing.assert_array_equal(wide.astype(np.uint32).view(np.float32), halves.astype(np.float32))
    np.testing.assert_array_equal(back[~np.isnan(halves)], bits[~np.isnan(halves)])
    assert set(back[np.isnan(halves)] & 0xFFFF) == {0x7FFF}
    brains = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(bf16.astype(np.uint32).view(np.float32), brains)


def conversions_to_float():
    """Instruction -> (source as a number, format, mode)."""
    found = {}
    for to, format_ in FORMATS.items():
        for source, given in FORMATS.items():
            if given.fraction > format_.fraction and given.width > format_.width:
                for mode in MODES:
                    found[f"cvt.{mode}.{to}.{source} d{format_.width}, a{given.width}"] = (
                        given,
                        format_,
                        mode,
                    )
        for source in ("s32", "u32", "s64", "u64"):
            for mode in MODES:
                found[f"cvt.{mode}.{to}.{source} d{format_.width}, a{source[1:]}"] = (source, format_, mode)
    return found


def as_number(source, bits):
    if isinstance(source, Format):
        return source.value(bits & ((1 << source.width) - 1))
    width = int(source[1:])
    bits &= (1 << width) - 1
    return Fraction(bits - (1 << width) if source[0] == "s" and bits >> (width - 1) else bits)


@pytest.mark.parametrize("width", [32, 64])
def test_conversion_to_floating_point(width):
    """From 32 and from 64 bits; among the numbers are ties, and some that one bit makes more than a tie."""
    generator = np.random.default_rng(width)
    conversions = {key: what for key, what in conversions_to_float().items() if f"a{width}" in key}
    bits = generator.integers(0, 1 << width, 600, np.uint64, endpoint=False)
    bits[:300] >>= generator.integers(0, width, 300, np.uint64)
    source = F32 if width == 32 else F64
    numbers = [
        Fraction(k, 2048) * 2**e + d
        for k in (1, 3, 4095, 4097)
        for e in (0, 8, 20)
        for d in (0, Fraction(1, 10**6))
    ]
    numbers += [Fraction(65519), Fraction(65520), Fraction(2) ** -25, Fraction(3, 2) * Fraction(2) ** -24]
    bits[-len(numbers) :] = [source.rounded(x) for x in numbers]
    operands = np.stack([bits] * 3, 1)
    for (text, (given, format_, mode)), got in zip(
        conversions.items(), run_each(conversions, operands), strict=True
    ):
        for row, result in zip(bits, got, strict=True):
            if isinstance(given, Format) and not given.is_finite(int(row)):
                continue
            assert same(format_, int(result), format_.rounded(as_number(given, int(row)), mode)), (
                text,
                hex(row),
            )


def test_conversion_of_floating_point_to_integers():
    """By mode, out of range to the nearest end; NaN to 0, or to the top bit where 64 bits take part."""
    generator = np.random.default_rng(3)
    values = np.concatenate(
        [
            generator.normal(size=200) * 10.0 ** generator.integers(-1, 21, 200),
            [
                0.5,
                1.5,
                2.5,
                -0.5,
                -1.5,
                2.0**31,
                -(2.0**31),
                2.0**32,
                2.0**63,
                -(2.0**63),
                2.0**64,
                127.5,
                300.0,
            ],
            [np.inf, -np.inf, np.nan],
        ]
    )
    single = values.astype(np.float32)
    operands = np.zeros((len(values), 3), np.uint64)
    operands[:, 0] = single.view(np.uint32)
    operands[:, 1] = values.view(np.uint64)
    rounders = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
    cases = {
        f"cvt.{mode}.{to}.{source} d{max(32, int(to[1:]))}, {operand}": (mode, to, x)
        for mode in rounders
        for to in ("s8", "u16", "s32", "u32", "s64", "u64")
        for source, operand, x in (("f32", "a32", single), ("f64", "b64", values))
    }
    for (text, (mode, to, x)), got in zip(cases.items(), run_each(cases, operands), strict=True):
        width = int(to[1:])
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if to[0] == "s" else (0, (1 << width) - 1)
        for number, bits in zip(x.astype(np.float64), got, strict=True):
            if np.isnan(number):
                want = 1 << (width - 1) if "64" in text.split()[0] else 0
            elif np.isinf(number):
                want = high if number > 0 else low
            else:
                want = min(max(int(rounders[mode](number)), low), high)
            assert (int(bits) - want) % (1 << width) == 0, (text, number)


def test_other_conversions():
    operands = np.array(
        [
            [np.float32(x).view(np.uint32), np.float32(y).view(np.uint32), 0]
            for x, y in ((2.5, -3.0), (-0.25, 1e-40))
        ],
        np.uint64,
    )
    got = run_each(
        [
            "cvt.rni.f32.f32 d32, a32",
            "cvt.rpi.ftz.f32.f32 d32, b32",
            "cvt.sat.f32.f32 d32, a32",
            "cvt.rn.f16x2.f32 d32, a32, b32",
            "cvt.rn.relu.bf16x2.f32 d32, a32, b32",
            "cvt.f64.f32 d64, a32",
        ],
        operands,
    )
    as_float = got[:3].astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(as_float, [[2.0, -0.0], [-3.0, 0.0], [1.0, 0.0]])
    assert list(got[3]) == [0x4100C200, 0xB4000000]
    assert list(got[4]) == [0x40200000, 0x00000001]
    np.testing.assert_array_equal(got[5].view(np.float64), [2.5, -0.25])
