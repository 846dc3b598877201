# mypy: ignore-errors
"""Random numbers in Triton: Philox words, uniform numbers, and the two logarithms of Gumbel noise -ln(-ln u).

Every function here takes and gives tiles of any shape. A block of four codes shares one call of Philox, so
the words of a tile of blocks come back as four tiles, one for each code of the block.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fqvae_kernels.backends._triton.jit import INTERPRETED, NVIDIA, kernel, settle_keys

LN2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)
# -ln(ln 2): a logarithm of a logarithm to base 2 is off by this much.
GUMBEL_OF_BASE_2 = tl.constexpr(0.36651292058166435)

# The first logarithm, of u. The hardware's has an absolute error of 2^-22 as u goes to 1, where the true
# value goes to 0. The error of g may be 2e-6 max(1, |g|) at most: with the hardware's instructions at the
# ends of their bounds it is so for all u up to 1 - 1/36 or so, so from 1 - 1/32 on a polynomial takes over,
# log2 u = f (C0 + C1 f + C2 f^2),  f = u - 1  (weighted minimax fit, relative error 2.5e-7), and the worst u
# is then at 0.91 of what is allowed. Two coefficients would be off by 4e-5; libdevice's logarithm costs a
# dozen multiply-adds and a branch for every u. The second logarithm, of -log2 u, needs no relative accuracy
# near 1, where g goes through 0: the hardware's 2^-22 is all right.
NEAR_ONE = tl.constexpr(-0.03125)
C0 = tl.constexpr(1.4426954)
C1 = tl.constexpr(-0.72114158)
C2 = tl.constexpr(0.49830785)


if NVIDIA and not INTERPRETED:

    @triton.jit
    def log2_approximate(x):
        """log2 of positive normal x, within 2^-22 for x between 1/2 and 2, to a relative 2^-22 elsewhere."""
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

    @triton.jit
    def exp2_approximate(x):
        """2^x to a relative 2^-22; 0 where that would be a denormal number."""
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

else:

    @triton.jit
    def log2_approximate(x):
        """log2 of positive normal x, within 2^-22 for x between 1/2 and 2, to a relative 2^-22 elsewhere."""
        return tl.log2(x)

    @triton.jit
    def exp2_approximate(x):
        """2^x to a relative 2^-22; 0, or a denormal number, where that would be one."""
        return tl.exp2(x)


@triton.jit
def log2(x):
    """log2, by the hardware's instruction for float32."""
    return tl.log2(x) if x.dtype == tl.float64 else log2_approximate(x)


@triton.jit
def exp2(x):
    """2^x, by the hardware's instruction for float32."""
    return tl.exp2(x) if x.dtype == tl.float64 else exp2_approximate(x)


@triton.jit
def read_seed(value, address):
    """The seed's bits: value, or, where address is not 0, what lies there.

    One program serves both, so that a CUDA graph, which reads its seeds there, is captured with what calls
    before it have loaded. The halves are read apart: the compiler then sees that they are the same for all
    threads, and keeps the keys of Philox's rounds in a warp's common registers. The 64 bits at once would
    cost the backward kernel 31 registers a thread.
    """
    # tl.full: under the interpreter a number is no tensor yet.
    bits = tl.full([], value, tl.int64).to(tl.uint64)
    place = tl.full([], address, tl.int64)
    halves = place.to(tl.pointer_type(tl.uint32))
    low = tl.load(halves, mask=place != 0, other=bits.to(tl.uint32))
    high = tl.load(halves + 1, mask=place != 0, other=(bits >> 32).to(tl.uint32))
    return (high.to(tl.uint64) << 32) | low.to(tl.uint64)


@triton.jit
def multiply_words(word, multiplier: tl.constexpr):
    """High and low word of a 32 x 32 bit product: one mul.wide."""
    product = word.to(tl.uint64) * multiplier
    return (product >> 32).to(tl.uint32), product.to(tl.uint32)


@triton.jit
def philox(block, row, seed, STREAM: tl.constexpr = 0):
    """The four words of Philox4x32-10 of each block of codes and row, as four tiles.

    block: uint32 tile, row: int64 tile of row numbers n; the words have their common shape. seed: uint64.
    Counter (block, STREAM, n low, n high), key the seed, low word first. What the first two rounds compute
    from the row alone or from the block alone keeps that tile's shape, so it is not repeated for every pair,
    and is moved out of a loop over the other.
    """
    bits = row.to(tl.uint64)
    high1, c1 = multiply_words(bits.to(tl.uint32), 0xCD9E8D57)
    high0, c3 = multiply_words(block, 0xD2511F53)
    key0 = seed.to(tl.uint32)
    key1 = (seed >> 32).to(tl.uint32)
    c0 = high1 ^ (key0 ^ STREAM)
    c2 = (high0 ^ key1) ^ (bits >> 32).to(tl.uint32)
    for _ in tl.static_range(9):
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
        high0, low0 = multiply_words(c0, 0xD2511F53)
        high1, low1 = multiply_words(c2, 0xCD9E8D57)
        c0 = (c1 ^ key0) ^ high1
        c2 = (c3 ^ key1) ^ high0
        c1, c3 = low1, low0
    return c0, c1, c2, c3


@triton.jit
def uniform(word, COMPUTE: tl.constexpr):
    """((word >> 9) + 1/2) 2^-23, exact: the word's bits as those of a number in [1, 2), less 1 - 2^-24."""
    one_to_two = ((word >> 9) | 0x3F800000).to(tl.float32, bitcast=True)
    return (one_to_two - 0.999999940395355224609375).to(COMPUTE)


@triton.jit
def row_uniform(row, seed, COMPUTE: tl.constexpr):
    """One number a row, uniform on (0, 1): what an index is drawn by. Its words are not the noise's."""
    word, _, _, _ = philox(tl.zeros_like(row).to(tl.uint32), row, seed, STREAM=1)
    return uniform(word, COMPUTE)


@triton.jit
def log2_uniform(u):
    """log2 of a uniform number, with relative accuracy as it goes to 1: there it decides the winners."""
    if u.dtype == tl.float64:
        log2_u = tl.log2(u)
    else:
        from_one = u - 1.0
        near = tl.fma(tl.fma(from_one, C2, C1), from_one, C0) * from_one
        log2_u = tl.where(from_one > NEAR_ONE, near, log2_approximate(u))
    return log2_u


@triton.jit
def log_exponential(word, COMPUTE: tl.constexpr):
    """log2(-log2 u) of the words: minus Gumbel noise, in base 2 and but for a constant."""
    return log2(-log2_uniform(uniform(word, COMPUTE)))


@triton.jit
def minus_natural(log2_x, add):
    """add - ln x, rounded once."""
    # tl.full: to tl.fma of Triton 3.8 a number by itself is a float32.
    return tl.fma(log2_x, tl.full([], -LN2, log2_x.dtype), add)


@triton.jit
def gumbel_of(word, COMPUTE: tl.constexpr):
    """-ln(-ln u) of the words."""
    return minus_natural(log_exponential(word, COMPUTE), tl.full([], GUMBEL_OF_BASE_2, COMPUTE))


@kernel
def gumbel_of_words_kernel(words, noise, count: tl.int64, SIZE: tl.constexpr):
    """noise (count,): Gumbel noise of given words, an int32 tensor of their bits."""
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE).to(tl.int64)
    word = tl.load(words + place, mask=place < count, other=0).to(tl.uint32, bitcast=True)
    tl.store(noise + place, gumbel_of(word, noise.dtype.element_ty), mask=place < count)


@kernel
def gumbel_noise_kernel(
    noise,
    seed_value: tl.int64,
    seed_address: tl.int64,
    rows: tl.int64,
    codes: tl.int32,
    row_offset: tl.int64,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """noise (rows, codes): -ln(-ln u). One program: ROWS rows, 4 BLOCKS codes."""
    tiles = (codes + 4 * BLOCKS - 1) // (4 * BLOCKS)
    row = (tl.program_id(0) // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)
    block = (tl.program_id(0) % tiles) * BLOCKS + tl.arange(0, BLOCKS)[None, :]
    words = philox(block.to(tl.uint32), row + row_offset, read_seed(seed_value, seed_address))
    for j in tl.static_range(4):
        code = 4 * block + j
        value = gumbel_of(words[j], noise.dtype.element_ty)
        tl.store(noise + row * codes + code, value, mask=(row < rows) & (code < codes))


settle_keys(globals())
