# mypy: ignore-errors
"""Rows in lanes: what the kernels have in common that go along each row's codes.

A program has ROWS rows and goes over the codes 4 BLOCKS at a time, as four tiles (ROWS, BLOCKS): code k is
word k mod 4 of block k div 4. What belongs to a row is a tile (ROWS, 1).
"""

from __future__ import annotations

import triton
import triton.language as tl

from fqvae_kernels.backends._triton.cost import (
    FAR_EXCESS,
    clamp_code,
    distance_logit,
    given_logit,
    is_finite,
    load_codes,
)
from fqvae_kernels.backends._triton.jit import settle_keys

# Codebooks whose codes lie within such a distance are seen from z itself, or from their end next to z; others
# from the nearest code, which costs a pass to find.
NARROW = tl.constexpr(8.0)
# Of float32 lengths, to keep their products finite and normal.
LENGTHS32 = tl.constexpr(2.0**-40)
# Codes that a program looks at together to find the ends of a codebook that all its rows share.
RANGE_TILE = tl.constexpr(256)


@triton.jit
def rows_of_program(ROWS: tl.constexpr):
    """The numbers of this program's rows, (ROWS, 1)."""
    return tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)


@triton.jit
def row_codebook(codebook, row, codes, codebooks, SEVERAL_CODEBOOKS: tl.constexpr):
    """Where each row's codebook begins: a tile of pointers, (1, 1) if it is the same for all."""
    return codebook + ((row % codebooks) * codes if SEVERAL_CODEBOOKS else tl.zeros([1, 1], dtype=tl.int64))


@triton.jit
def shared_range(codebook, codes):
    """The lowest and the highest code of one codebook, and whether all are finite, as scalars.

    A tile of one dimension, so that its layout does not spread to the tiles of rows.
    """
    infinity = float("inf")
    column = tl.arange(0, RANGE_TILE)
    lowest = tl.full([RANGE_TILE], infinity, codebook.dtype.element_ty)
    highest = -lowest
    bad = tl.zeros([RANGE_TILE], dtype=tl.int32)
    for first in range(0, codes, RANGE_TILE):
        inside = first + column < codes
        code = tl.load(codebook + first + column, mask=inside, other=0.0)
        bad = tl.where(is_finite(code), bad, 1)
        lowest = tl.minimum(lowest, tl.where(inside, clamp_code(code), infinity))
        highest = tl.maximum(highest, tl.where(inside, clamp_code(code), -infinity))
    return tl.min(lowest, axis=0), tl.max(highest, axis=0), tl.max(bad, axis=0) == 0


@triton.jit
def row_range(book, codes, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """The lowest and the highest code of each row's own codebook, and whether all are finite, (ROWS, 1)."""
    infinity = float("inf")
    lowest = tl.full([ROWS, BLOCKS], infinity, book.dtype.element_ty)
    highest = -lowest
    bad = tl.zeros([ROWS, BLOCKS], dtype=tl.int32)
    for first in range(0, codes, 4 * BLOCKS):
        for j in tl.static_range(4):
            number = first + 4 * tl.arange(0, BLOCKS)[None, :] + j
            code = tl.load(book + number, mask=number < codes, other=0.0)
            bad = tl.where(is_finite(code), bad, 1)
            lowest = tl.minimum(lowest, tl.where(number < codes, clamp_code(code), infinity))
            highest = tl.maximum(highest, tl.where(number < codes, clamp_code(code), -infinity))
    return (
        tl.min(lowest, axis=1, keep_dims=True),
        tl.max(highest, axis=1, keep_dims=True),
        tl.max(bad, axis=1, keep_dims=True) == 0,
    )


@triton.jit
def codebook_range(
    codebook, book, codes, SEVERAL_CODEBOOKS: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr
):
    """The lowest and the highest code of each row's codebook, and whether all are finite."""
    if SEVERAL_CODEBOOKS:
        lowest, highest, finite = row_range(book, codes, ROWS, BLOCKS)
    else:
        lowest, highest, finite = shared_range(codebook, codes)
    return lowest, highest, finite


@triton.jit
def nearest_code(book, codes, z, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """The number of the code nearest to each z, the lowest on a tie; z (ROWS, 1), within the codebook."""
    block = tl.arange(0, BLOCKS)[None, :]
    distance = tl.full([ROWS, BLOCKS], float("inf"), z.dtype)
    index = tl.zeros([ROWS, BLOCKS], dtype=tl.int32)
    for first in range(0, codes, 4 * BLOCKS):
        for j in tl.static_range(4):
            number = first + 4 * block + j
            code = load_codes(book, number, codes)
            away = tl.abs(z - code)
            closer = away < distance
            distance = tl.minimum(away, distance)
            index = tl.where(closer, number, index)
    closest = distance == tl.min(distance, axis=1, keep_dims=True)
    return tl.min(tl.where(closest, index, codes - 1), axis=1, keep_dims=True)


@triton.jit
def reference_code(book, codes, z, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """The code of each z that has the largest logit; z (ROWS, 1), within the codebook.

    That is the nearest one. Far from it the distances |z - m| of several codes round to the same number, but
    the signs of their logits, seen from each other, still tell which is nearer.
    """
    scale: tl.constexpr = 1.0 if z.dtype == tl.float64 else LENGTHS32
    block = tl.arange(0, BLOCKS)[None, :]
    found = tl.zeros([ROWS, BLOCKS], dtype=z.dtype) + clamp_code(tl.load(book))
    for first in range(0, codes, 4 * BLOCKS):
        for j in tl.static_range(4):
            code = load_codes(book, first + 4 * block + j, codes)
            offset = code - found
            found = tl.where(offset * (0.5 * offset - (z - found)) < 0, code, found)
    away = tl.abs(z - found)
    nearest = tl.where(away == tl.min(away, axis=1, keep_dims=True), found, -float("inf"))
    nearest = tl.max(nearest, axis=1, keep_dims=True)
    for _ in tl.static_range(
        2
    ):  # seen from a code that is all but the nearest, none rounds to another's logit
        excess = tl.minimum(tl.maximum(z - nearest, -FAR_EXCESS), FAR_EXCESS)
        logit = distance_logit((found - nearest) * scale, excess * scale)
        best = tl.where(logit == tl.max(logit, axis=1, keep_dims=True), found, float("inf"))
        nearest = tl.min(best, axis=1, keep_dims=True)
    return nearest


@triton.jit
def largest_logit(
    logits, row, rows, book, codes, COMPUTE: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr
):
    """Each row's largest logit, its code, and whether the row is usable: no NaN, no +inf, not all -inf, and
    every code finite."""
    infinity = float("inf")
    block = tl.arange(0, BLOCKS)[None, :]
    largest = tl.full([ROWS, BLOCKS], -infinity, COMPUTE)
    code = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    bad = tl.zeros([ROWS, BLOCKS], dtype=tl.int32)
    for first in range(0, codes, 4 * BLOCKS):
        for j in tl.static_range(4):
            number = first + 4 * block + j
            x = tl.load(logits + row * codes + number, mask=(row < rows) & (number < codes), other=-infinity)
            x = x.to(COMPUTE)
            m = tl.load(book + number, mask=number < codes, other=0.0)
            bad = tl.where((x < infinity) & is_finite(m), bad, 1)
            code = tl.where(x > largest, clamp_code(m), code)
            largest = tl.maximum(x, largest)
    row_largest = tl.max(largest, axis=1, keep_dims=True)
    row_code = tl.max(tl.where(largest == row_largest, code, -infinity), axis=1, keep_dims=True)
    usable = (tl.max(bad, axis=1, keep_dims=True) == 0) & (row_largest > -infinity)
    return tl.where(usable, row_largest, 0.0), tl.where(usable, row_code, 0.0), usable


@triton.jit
def stand(
    input,
    codebook,
    book,
    row,
    rows,
    codes,
    COMPUTE: tl.constexpr,
    IS_LOGITS: tl.constexpr,
    SEVERAL_CODEBOOKS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Each row's reference and excess (or the code of the largest logit, and that logit), and whether the row
    is usable. They are finite also where it is not.
    """
    if IS_LOGITS:
        excess, reference, usable = largest_logit(input, row, rows, book, codes, COMPUTE, ROWS, BLOCKS)
    else:
        z = tl.load(input + row, mask=row < rows, other=0.0).to(COMPUTE)
        lowest, highest, finite = codebook_range(codebook, book, codes, SEVERAL_CODEBOOKS, ROWS, BLOCKS)
        usable = is_finite(z) & finite
        z = tl.where(usable, z, 0.0)
        width = highest - lowest
        if SEVERAL_CODEBOOKS:
            width = tl.max(tl.max(width, axis=1), axis=0)
        reference = tl.minimum(tl.maximum(z, lowest), highest)
        if width > NARROW:
            reference = reference_code(book, codes, reference, ROWS, BLOCKS)
        excess = tl.minimum(tl.maximum(z - reference, -FAR_EXCESS), FAR_EXCESS)
    return reference, excess, usable


@triton.jit
def see(
    input,
    row,
    rows,
    book,
    number,
    codes,
    reference,
    excess,
    usable,
    COMPUTE: tl.constexpr,
    IS_LOGITS: tl.constexpr,
):
    """Offset and logit of the codes `number`, seen from the rows' reference points."""
    offset = load_codes(book, number, codes) - reference
    if IS_LOGITS:
        mask = (row < rows) & (number < codes)
        logit = given_logit(input + row * codes + number, mask, usable, excess, COMPUTE)
    else:
        logit = distance_logit(offset, excess)
    return offset, logit


@triton.jit
def divergence(mean_logit, partition, codes):
    """KL(q || uniform) in nats, at least 0: sum of q ln(q K)."""
    log_codes = tl.log(codes.to(partition.dtype))
    return tl.maximum(log_codes + (mean_logit - tl.log(partition)), 0.0)


settle_keys(globals())
