"""Integer instructions against Python's integers, on random operands and those at the edges."""

import numpy as np
import pytest

from .snippets import run_each


def signed(x, width):
    x &= (1 << width) - 1
    return x - (1 << width) if x >> (width - 1) else x


def s16(x):
    return signed(x, 16)


def s32(x):
    return signed(x, 32)


def s64(x):
    return signed(x, 64)


def u(x, width=32):
    return x & ((1 << width) - 1)


def clamp(x, width):
    return max(-(1 << (width - 1)), min((1 << (width - 1)) - 1, x))


def truncated(a, b):
    """Division toward zero."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def field(a, position, length, width, is_signed):
    """bfe, after the pseudocode of the PTX ISA: bit by bit."""
    position, length, top = position & 255, length & 255, width - 1
    sign = a >> min(position + length - 1, top) & 1 if is_signed and length else 0
    inside = [a >> (position + i) & 1 if i < length and position + i <= top else sign for i in range(width)]
    return sum(bit << i for i, bit in enumerate(inside))


def inserted(a, b, position, length, width):
    position, length = position & 255, length & 255
    bits = [b >> i & 1 for i in range(width)]
    for i in range(length):
        if position + i < width:
            bits[position + i] = a >> i & 1
    return sum(bit << i for i, bit in enumerate(bits))


def permuted(a, b, selectors):
    source = [(a >> 8 * i) & 255 for i in range(4)] + [(b >> 8 * i) & 255 for i in range(4)]
    result = 0
    for i in range(4):
        selector = selectors >> 4 * i & 15
        byte = source[selector & 7]
        result |= (byte if selector < 8 else 255 * (byte >> 7)) << 8 * i
    return result


def looked_up(a, b, c, table):
    return sum((table >> (4 * (a >> i & 1) + 2 * (b >> i & 1) + (c >> i & 1)) & 1) << i for i in range(32))


def dotted(a, b, c, signed_a, signed_b):
    def byte(x, i, is_signed):
        return signed(x >> 8 * i, 8) if is_signed else x >> 8 * i & 255

    return c + sum(byte(a, i, signed_a) * byte(b, i, signed_b) for i in range(4))


def highest(x, width):
    """Position of the highest bit that differs from the sign, -1 if there is none."""
    return (~x if x < 0 else x).bit_length() - 1


# Instruction: what it gives for a, b, c as unsigned integers of 64 bits; compared in the width of the result.
INSTRUCTIONS = {
    "add.u16 d16, a16, b16": lambda a, b, c: a + b,
    "add.s32 d32, a32, b32": lambda a, b, c: a + b,
    "add.sat.s32 d32, a32, b32": lambda a, b, c: clamp(s32(a) + s32(b), 32),
    "add.u64 d64, a64, 0xFFFFFFFFFFFFFFF0": lambda a, b, c: a - 16,
    "sub.s32 d32, a32, -5": lambda a, b, c: a + 5,
    "sub.sat.s32 d32, a32, b32": lambda a, b, c: clamp(s32(a) - s32(b), 32),
    "sub.u64 d64, a64, b64": lambda a, b, c: a - b,
    "mul.lo.u16 d16, a16, b16": lambda a, b, c: a * b,
    "mul.hi.s16 d16, a16, b16": lambda a, b, c: s16(a) * s16(b) >> 16,
    "mul.lo.s32 d32, a32, b32": lambda a, b, c: a * b,
    "mul.hi.u32 d32, a32, b32": lambda a, b, c: u(a) * u(b) >> 32,
    "mul.hi.s32 d32, a32, b32": lambda a, b, c: s32(a) * s32(b) >> 32,
    "mul.wide.u16 d32, a16, b16": lambda a, b, c: u(a, 16) * u(b, 16),
    "mul.wide.s32 d64, a32, b32": lambda a, b, c: s32(a) * s32(b),
    "mul.wide.u32 d64, a32, b32": lambda a, b, c: u(a) * u(b),
    "mul.lo.u64 d64, a64, b64": lambda a, b, c: a * b,
    "mul.hi.u64 d64, a64, b64": lambda a, b, c: a * b >> 64,
    "mul.hi.s64 d64, a64, b64": lambda a, b, c: s64(a) * s64(b) >> 64,
    "mul24.lo.s32 d32, a32, b32": lambda a, b, c: signed(a, 24) * signed(b, 24),
    "mul24.hi.u32 d32, a32, b32": lambda a, b, c: u(a, 24) * u(b, 24) >> 16,
    "mad.lo.s32 d32, a32, b32, c32": lambda a, b, c: a * b + c,
    "mad.hi.u32 d32, a32, b32, c32": lambda a, b, c: (u(a) * u(b) >> 32) + c,
    "mad.hi.sat.s32 d32, a32, b32, c32": lambda a, b, c: clamp((s32(a) * s32(b) >> 32) + s32(c), 32),
    "mad.wide.s32 d64, a32, b32, c64": lambda a, b, c: s32(a) * s32(b) + c,
    "mad.wide.u16 d32, a16, b16, c32": lambda a, b, c: u(a, 16) * u(b, 16) + c,
    "mad.lo.u64 d64, a64, b64, c64": lambda a, b, c: a * b + c,
    "div.u32 d32, a32, b32": lambda a, b, c: u(a) // u(b) if u(b) else -1,
    "div.s32 d32, a32, b32": lambda a, b, c: truncated(s32(a), s32(b)) if u(b) else -1,
    "div.s64 d64, a64, b64": lambda a, b, c: truncated(s64(a), s64(b)) if b else -1,
    "rem.u64 d64, a64, b64": lambda a, b, c: a % b if b else a,
    "rem.s32 d32, a32, b32": lambda a, b, c: s32(a) - truncated(s32(a), s32(b)) * s32(b) if u(b) else a,
    "min.s32 d32, a32, b32": lambda a, b, c: min(s32(a), s32(b)),
    "max.u16 d16, a16, b16": lambda a, b, c: max(u(a, 16), u(b, 16)),
    "max.s64 d64, a64, b64": lambda a, b, c: max(s64(a), s64(b)),
    "min.u32 d32, a32, b32": lambda a, b, c: min(u(a), u(b)),
    "neg.s32 d32, a32": lambda a, b, c: -a,
    "abs.s64 d64, a64": lambda a, b, c: abs(s64(a)),
    "sad.s32 d32, a32, b32, c32": lambda a, b, c: abs(s32(a) - s32(b)) + c,
    "and.b64 d64, a64, b64": lambda a, b, c: a & b,
    "or.b16 d16, a16, b16": lambda a, b, c: a | b,
    "xor.b32 d32, a32, 0x80000000": lambda a, b, c: a ^ 0x80000000,
    "not.b64 d64, a64": lambda a, b, c: ~a,
    "cnot.b32 d32, a32": lambda a, b, c: u(a) == 0,
    "lop3.b32 d32, a32, b32, c32, 0x96": lambda a, b, c: a ^ b ^ c,
    "lop3.b32 d32, a32, b32, c32, 0xE2": lambda a, b, c: looked_up(a, b, c, 0xE2),
    "shl.b32 d32, a32, b32": lambda a, b, c: a << u(b) if u(b) < 32 else 0,
    "shl.b64 d64, a64, b32": lambda a, b, c: a << u(b) if u(b) < 64 else 0,
    "shr.u32 d32, a32, b32": lambda a, b, c: u(a) >> u(b),
    "shr.s32 d32, a32, b32": lambda a, b, c: s32(a) >> min(u(b), 31),
    "shr.s16 d16, a16, b32": lambda a, b, c: s16(a) >> min(u(b), 15),
    "shr.u64 d64, a64, b32": lambda a, b, c: a >> u(b),
    "shf.l.wrap.b32 d32, a32, b32, c32": lambda a, b, c: (u(b) << 32 | u(a)) << (c & 31) >> 32,
    "shf.l.clamp.b32 d32, a32, b32, c32": lambda a, b, c: (u(b) << 32 | u(a)) << min(u(c), 32) >> 32,
    "shf.r.wrap.b32 d32, a32, b32, c32": lambda a, b, c: (u(b) << 32 | u(a)) >> (c & 31),
    "shf.r.clamp.b32 d32, a32, b32, c32": lambda a, b, c: (u(b) << 32 | u(a)) >> min(u(c), 32),
    "prmt.b32 d32, a32, b32, c32": permuted,
    "bfe.u32 d32, a32, b32, c32": lambda a, b, c: field(u(a), b, c, 32, False),
    "bfe.s32 d32, a32, b32, c32": lambda a, b, c: field(u(a), b, c, 32, True),
    "bfe.u64 d64, a64, b32, c32": lambda a, b, c: field(a, b, c, 64, False),
    "bfe.s64 d64, a64, b32, c32": lambda a, b, c: field(a, b, c, 64, True),
    "bfi.b32 d32, a32, 0x12345678, b32, c32": lambda a, b, c: inserted(a, 0x12345678, b, c, 32),
    "bfi.b64 d64, a64, b64, b32, c32": lambda a, b, c: inserted(a, b, b, c, 64),
    "bfind.u32 d32, a32": lambda a, b, c: highest(u(a), 32),
    "bfind.s64 d32, a64": lambda a, b, c: highest(s64(a), 64),
    "bfind.shiftamt.s32 d32, a32": lambda a, b, c: (
        31 - highest(s32(a), 32) if highest(s32(a), 32) >= 0 else -1
    ),
    "brev.b32 d32, a32": lambda a, b, c: int(f"{u(a):032b}"[::-1], 2),
    "brev.b64 d64, a64": lambda a, b, c: int(f"{a:064b}"[::-1], 2),
    "popc.b32 d32, a32": lambda a, b, c: bin(u(a)).count("1"),
    "popc.b64 d32, a64": lambda a, b, c: bin(a).count("1"),
    "clz.b32 d32, a32": lambda a, b, c: 32 - u(a).bit_length(),
    "clz.b64 d32, a64": lambda a, b, c: 64 - a.bit_length(),
    "dp4a.u32.u32 d32, a32, b32, c32": lambda a, b, c: dotted(a, b, c, False, False),
    "dp4a.s32.u32 d32, a32, b32, c32": lambda a, b, c: dotted(a, b, c, True, False),
    # Carries: the upper half of a sum, difference or product of 64 or 128 bits.
    "add.cc.u32 d32, a32, b32; addc.u32 d32, c32, 0": lambda a, b, c: (u(a) + u(b) >> 32) + c,
    "add.cc.u32 d32, a32, b32; addc.cc.u32 d32, c32, -1; addc.u32 d32, 0, 0": (
        lambda a, b, c: (u(a) + u(b) >> 32) + u(c) + 0xFFFFFFFF >> 32
    ),
    "sub.cc.u64 d64, a64, b64; subc.u64 d64, c64, 0": lambda a, b, c: c - (a < b),
    "sub.cc.u32 d32, a32, b32; subc.cc.u32 d32, c32, 0; subc.u32 d32, 0, 0": (
        lambda a, b, c: -(u(c) - (u(a) < u(b)) < 0)
    ),
    "mad.lo.cc.u32 d32, a32, b32, c32; madc.hi.u32 d32, a32, b32, 7": (
        lambda a, b, c: (u(a) * u(b) >> 32) + 7 + (u(u(a) * u(b)) + u(c) >> 32)
    ),
    "mad.lo.cc.u64 d64, a64, b64, c64; madc.hi.u64 d64, a64, b64, 0": lambda a, b, c: a * b + c >> 64,
    # Comparison and selection.
    "setp.lt.s32 q, a32, b32": lambda a, b, c: s32(a) < s32(b),
    "setp.lo.u32 q, a32, b32": lambda a, b, c: u(a) < u(b),
    "setp.hs.u64 q, a64, b64": lambda a, b, c: a >= b,
    "setp.le.s64 q, a64, b64": lambda a, b, c: s64(a) <= s64(b),
    "setp.eq.s16 q, a16, b16": lambda a, b, c: u(a, 16) == u(b, 16),
    "setp.ne.b64 q, a64, b64": lambda a, b, c: a != b,
    "setp.gt.and.s32 q|r, a32, b32, p": lambda a, b, c: s32(a) > s32(b) and c & 1,
    "setp.gt.or.s32 r|q, a32, b32, !p": lambda a, b, c: s32(a) <= s32(b) or not c & 1,
    "setp.lt.xor.u16 q, a16, b16, p": lambda a, b, c: (u(a, 16) < u(b, 16)) ^ (c & 1),
    "set.ge.u32.s32 d32, a32, b32": lambda a, b, c: -(s32(a) >= s32(b)),
    "set.lt.and.u32.u32 d32, a32, b32, p": lambda a, b, c: -(u(a) < u(b) and c & 1),
    "selp.b64 d64, a64, b64, p": lambda a, b, c: a if c & 1 else b,
    "selp.u16 d16, a16, 3, p": lambda a, b, c: a if c & 1 else 3,
    "slct.u32.s32 d32, a32, b32, c32": lambda a, b, c: a if s32(c) >= 0 else b,
    "not.pred q, p": lambda a, b, c: not c & 1,
    "xor.pred q, p, p": lambda a, b, c: 0,
    "@p mov.u32 d32, a32; @!p mov.u32 d32, b32": lambda a, b, c: a if c & 1 else b,
    # Conversion and moves.
    "cvt.u32.u16 d32, a16": lambda a, b, c: u(a, 16),
    "cvt.s32.s16 d32, a16": lambda a, b, c: s16(a),
    "cvt.s64.s32 d64, a32": lambda a, b, c: s32(a),
    "cvt.u64.s8 d64, a32": lambda a, b, c: signed(a, 8),
    "cvt.s8.s32 d32, a32": lambda a, b, c: signed(a, 8),
    "cvt.u16.u64 d16, a64": lambda a, b, c: a,
    "cvt.sat.s8.s32 d32, a32": lambda a, b, c: clamp(s32(a), 8),
    "cvt.sat.u8.s32 d32, a32": lambda a, b, c: max(0, min(255, s32(a))),
    "cvt.sat.s32.u64 d32, a64": lambda a, b, c: min(a, 2**31 - 1),
    "mov.b64 d64, {a32, b32}": lambda a, b, c: u(b) << 32 | u(a),
    "mov.b64 {_, d32}, a64": lambda a, b, c: a >> 32,
    "mov.b32 d32, {a16, b16}": lambda a, b, c: u(b, 16) << 16 | u(a, 16),
    "mov.b32 {d16, _}, a32": lambda a, b, c: a,
    "mov.u32 d32, WARP_SZ": lambda a, b, c: 32,
    "mov.b32 d32, 0f3F800000": lambda a, b, c: 0x3F800000,
    "mov.u32 d32, 017": lambda a, b, c: 15,
}
EDGES = [
    0,
    1,
    2,
    5,
    31,
    32,
    33,
    63,
    64,
    255,
    256,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**63,
    2**64 - 1,
]


@pytest.fixture(scope="module")
def operands():
    """Every pair of edges, and random numbers of random lengths: (rows, 3)."""
    generator = np.random.default_rng(5)
    edges = np.array(EDGES, np.uint64)
    pairs = np.stack(np.meshgrid(edges, edges), -1).reshape(-1, 2)
    rows = np.column_stack([pairs, generator.choice(edges, len(pairs))])
    random = generator.integers(0, 2**64, (300, 3), np.uint64) >> generator.integers(
        0, 64, (300, 3), np.uint64
    )
    return np.concatenate([rows, random])


@pytest.fixture(scope="module")
def results(operands):
    return dict(zip(INSTRUCTIONS, run_each(INSTRUCTIONS, operands), strict=True))


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_against_python_integers(instruction, operands, results):
    width = {"d16": 16, "d32": 32, "d64": 64}.get(
        next(w for w in ("d16", "d32", "d64", "q") if w in instruction), 1
    )
    truth = INSTRUCTIONS[instruction]
    expected = [u(int(truth(*map(int, row))), width) for row in operands]
    wrong = [
        f"a={row[0]:#x} b={row[1]:#x} c={row[2]:#x}: {int(got):#x}, expected {want:#x}"
        for row, got, want in zip(operands, results[instruction], expected, strict=True)
        if got != want
    ]
    assert not wrong, wrong[:3]
