# mypy: ignore-errors
"""Rows against codes with the rows in lanes: forward pass, weights, nearest code.

A program has ROWS rows and goes over the codes 4 BLOCKS at a time, as four tiles (ROWS, BLOCKS): code k is
word k mod 4 of block k div 4. Every slot of a tile keeps a maximum and sums of its own, and only after the
last code are a row's slots brought together, so the loop has no exchange between lanes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fqvae_kernels.backends._triton.jit import kernel, settle_keys
from fqvae_kernels.backends._triton.noise import exp2, philox, read_seed
from fqvae_kernels.backends._triton.score import (
    BEST,
    FAR_EXCESS,
    LOG2_PARTITION,
    LOG2_TOTAL,
    MEAN_LOGIT,
    MEAN_OFFSET,
    ORIGIN,
    SECOND,
    base_2,
    distance_logit,
    divide,
    given_logit,
    inverse_temperature,
    load_codes,
    score,
    soft_weight,
)

# Codebooks whose codes lie within such a distance are seen from z itself, or from their end next to z; others
# from the nearest code, which costs a pass to find.
NARROW = tl.constexpr(8.0)
# No row's best score is below this: the lowest noise is -3.2, the nearest code's logit at least -(8 / 2)^2. A
# slot's maximum begins here, so that its multiple of 1 / temperature is rounded finely whatever the slot
# holds.
LOWEST_SCORE = tl.constexpr(-20.0)
# Codes that a program looks at together to find the ends of a codebook that all its rows share.
RANGE_TILE = tl.constexpr(256)


@triton.jit
def row_codebook(codebook, row, codes, latents, PER_LATENT: tl.constexpr):
    """Where each row's codebook begins: a tile of pointers, (1, 1) if it is the same for all."""
    return codebook + ((row % latents) * codes if PER_LATENT else tl.zeros([1, 1], dtype=tl.int64))


@triton.jit
def shared_range(codebook, codes):
    """The lowest and the highest code of one codebook, as scalars.

    A tile of one dimension, so that its layout does not spread to the tiles of rows.
    """
    infinity = float("inf")
    column = tl.arange(0, RANGE_TILE)
    lowest = tl.full([RANGE_TILE], infinity, codebook.dtype.element_ty)
    highest = -lowest
    for first in range(0, codes, RANGE_TILE):
        inside = first + column < codes
        code = tl.load(codebook + first + column, mask=inside, other=0.0)
        lowest = tl.minimum(lowest, tl.where(inside, code, infinity))
        highest = tl.maximum(highest, tl.where(inside, code, -infinity))
    return tl.min(lowest, axis=0), tl.max(highest, axis=0)


@triton.jit
def row_range(book, codes, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """The lowest and the highest code of each row's own codebook, (ROWS, 1)."""
    infinity = float("inf")
    lowest = tl.full([ROWS, BLOCKS], infinity, book.dtype.element_ty)
    highest = -lowest
    for first in range(0, codes, 4 * BLOCKS):
        for j in tl.static_range(4):
            number = first + 4 * tl.arange(0, BLOCKS)[None, :] + j
            code = tl.load(book + number, mask=number < codes, other=0.0)
            lowest = tl.minimum(lowest, tl.where(number < codes, code, infinity))
            highest = tl.maximum(highest, tl.where(number < codes, code, -infinity))
    return tl.min(lowest, axis=1, keep_dims=True), tl.max(highest, axis=1, keep_dims=True)


@triton.jit
def nearest_code(book, codes, z, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """The nearest code of each z, and its number, the lowest on a tie; z (ROWS, 1), within the codebook."""
    block = tl.arange(0, BLOCKS)[None, :]
    distance = tl.full([ROWS, BLOCKS], float("inf"), z.dtype)
    nearest = tl.zeros([ROWS, BLOCKS], dtype=z.dtype)
    index = tl.zeros([ROWS, BLOCKS], dtype=tl.int32)
    for first in range(0, codes, 4 * BLOCKS):
        for j in tl.static_range(4):
            number = first + 4 * block + j
            code = load_codes(book, number, codes)
            away = tl.abs(z - code)
            closer = away < distance
            distance = tl.minimum(away, distance)
            nearest = tl.where(closer, code, nearest)
            index = tl.where(closer, number, index)
    closest = distance == tl.min(distance, axis=1, keep_dims=True)
    index = tl.min(tl.where(closest, index, codes - 1), axis=1, keep_dims=True)
    return tl.max(tl.where(closest, nearest, -float("inf")), axis=1, keep_dims=True), index


@triton.jit
def largest_logit(
    logits, row, rows, book, codes, COMPUTE: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr
):
    """Each row's largest logit, its code, and whether the row is usable: no NaN, no +inf, not all -inf."""
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
            bad = tl.where(x < infinity, bad, 1)
            code = tl.where(x > largest, load_codes(book, number, codes), code)
            largest = tl.maximum(x, largest)
    row_largest = tl.max(largest, axis=1, keep_dims=True)
    row_code = tl.max(tl.where(largest == row_largest, code, -infinity), axis=1, keep_dims=True)
    usable = (tl.max(bad, axis=1, keep_dims=True) == 0) & (row_largest > -infinity)
    return tl.where(usable, row_largest, 0.0), tl.where(usable, row_code, 0.0), usable


@triton.jit
def see(
    input,
    row,
    rows,
    book,
    number,
    codes,
    origin,
    second,
    usable,
    COMPUTE: tl.constexpr,
    IS_LOGITS: tl.constexpr,
):
    """Offset and logit of the codes `number`, seen from the rows' reference points."""
    offset = load_codes(book, number, codes) - origin
    if IS_LOGITS:
        mask = (row < rows) & (number < codes)
        logit = given_logit(input + row * codes + number, mask, usable, second, COMPUTE)
    else:
        logit = distance_logit(offset, second)
    return offset, logit


@kernel
def gumbel_forward_kernel(
    input,
    codebook,
    quantized,
    indices,
    kl,
    stats,
    seed_value: tl.int64,
    seed_address: tl.int64,
    temperature_value: tl.float64,
    temperature_address: tl.int64,
    temperature_type: tl.int32,
    rows: tl.int64,
    codes: tl.int32,
    latents: tl.int32,
    row_offset: tl.int64,
    IS_LOGITS: tl.constexpr,
    HARD: tl.constexpr,
    PER_LATENT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """quantized, indices, kl; stats for the backward pass unless None. One program: ROWS rows."""
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)
    inside = row < rows
    seed = read_seed(seed_value, seed_address)
    scale = base_2(inverse_temperature(temperature_value, temperature_address, temperature_type, COMPUTE))
    book = row_codebook(codebook, row, codes, latents, PER_LATENT)

    if IS_LOGITS:
        second, origin, usable = largest_logit(input, row, rows, book, codes, COMPUTE, ROWS, BLOCKS)
    else:
        z = tl.load(input + row, mask=inside, other=0.0).to(COMPUTE)
        usable = tl.abs(z) < float("inf")
        z = tl.where(usable, z, 0.0)
        if PER_LATENT:
            lowest, highest = row_range(book, codes, ROWS, BLOCKS)
            width = tl.max(tl.max(highest - lowest, axis=1), axis=0)
        else:
            lowest, highest = shared_range(codebook, codes)
            width = highest - lowest
        origin = tl.minimum(tl.maximum(z, lowest), highest)
        if width > NARROW:
            origin, _ = nearest_code(book, codes, origin, ROWS, BLOCKS)
        second = tl.minimum(tl.maximum(z - origin, -FAR_EXCESS), FAR_EXCESS)

    best = tl.full([ROWS, BLOCKS], LOWEST_SCORE, COMPUTE)
    index = tl.zeros([ROWS, BLOCKS], dtype=tl.int32)
    total = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    weighted = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    partition = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    weighted_logit = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    for first in range(0, codes, 4 * BLOCKS):
        block = first // 4 + tl.arange(0, BLOCKS)[None, :]
        number = 4 * block
        w0, w1, w2, w3 = philox(block.to(tl.uint32), row + row_offset, seed)
        d0, l0 = see(input, row, rows, book, number, codes, origin, second, usable, COMPUTE, IS_LOGITS)
        d1, l1 = see(input, row, rows, book, number + 1, codes, origin, second, usable, COMPUTE, IS_LOGITS)
        d2, l2 = see(input, row, rows, book, number + 2, codes, origin, second, usable, COMPUTE, IS_LOGITS)
        d3, l3 = see(input, row, rows, book, number + 3, codes, origin, second, usable, COMPUTE, IS_LOGITS)
        s0, s1, s2, s3 = score(l0, w0), score(l1, w1), score(l2, w2), score(l3, w3)

        before = best
        index = tl.where(s0 > best, number, index)
        best = tl.maximum(best, s0)
        index = tl.where(s1 > best, number + 1, index)
        best = tl.maximum(best, s1)
        index = tl.where(s2 > best, number + 2, index)
        best = tl.maximum(best, s2)
        index = tl.where(s3 > best, number + 3, index)
        best = tl.maximum(best, s3)

        # The maximum may have risen: bring the sums so far to the new one. Differences come first: multiples
        # of 1/temperature may be so large that their rounding is, too.
        factor = exp2((before - best) * scale)
        e0, e1 = exp2((s0 - best) * scale), exp2((s1 - best) * scale)
        e2, e3 = exp2((s2 - best) * scale), exp2((s3 - best) * scale)
        total = tl.fma(total, factor, (e0 + e1) + (e2 + e3))
        here = tl.fma(e0, d0, e1 * d1) + tl.fma(e2, d2, e3 * d3)
        weighted = tl.fma(weighted, factor, here)
        q0, q1, q2, q3 = exp2(base_2(l0)), exp2(base_2(l1)), exp2(base_2(l2)), exp2(base_2(l3))
        partition += (q0 + q1) + (q2 + q3)
        weighted_logit += tl.fma(q0, l0, q1 * l1) + tl.fma(q2, l2, q3 * l3)

    row_best = tl.max(best, axis=1, keep_dims=True)
    row_index = tl.min(tl.where(best == row_best, index, codes - 1), axis=1, keep_dims=True).to(tl.int64)
    factor = exp2((best - row_best) * scale)
    row_total = tl.sum(total * factor, axis=1, keep_dims=True)
    mean_offset = divide(tl.sum(weighted * factor, axis=1, keep_dims=True), row_total)
    row_partition = tl.sum(partition, axis=1, keep_dims=True)
    mean_logit = divide(tl.sum(weighted_logit, axis=1, keep_dims=True), row_partition)

    value = tl.load(book + row_index) if HARD else origin + mean_offset
    divergence = tl.log(codes.to(COMPUTE)) + (mean_logit - tl.log(row_partition))
    nan = float("nan")
    tl.store(quantized + row, tl.where(usable, value, nan), mask=inside)
    tl.store(indices + row, row_index, mask=inside)
    tl.store(kl + row, tl.where(usable, tl.maximum(divergence, 0.0), nan), mask=inside)
    if stats is not None:
        tl.store(stats + ORIGIN * rows + row, tl.where(usable, origin, nan), mask=inside)
        tl.store(stats + SECOND * rows + row, second, mask=inside)
        tl.store(stats + MEAN_OFFSET * rows + row, mean_offset, mask=inside)
        tl.store(stats + BEST * rows + row, row_best, mask=inside)
        tl.store(stats + LOG2_TOTAL * rows + row, base_2(tl.log(row_total)), mask=inside)
        tl.store(stats + LOG2_PARTITION * rows + row, base_2(tl.log(row_partition)), mask=inside)
        tl.store(stats + MEAN_LOGIT * rows + row, mean_logit, mask=inside)


@kernel
def gumbel_weights_kernel(
    input,
    codebook,
    indices,
    stats,
    weights,
    grad_weights,
    mean,
    seed_value: tl.int64,
    seed_address: tl.int64,
    temperature_value: tl.float64,
    temperature_address: tl.int64,
    temperature_type: tl.int32,
    rows: tl.int64,
    codes: tl.int32,
    latents: tl.int32,
    row_offset: tl.int64,
    IS_LOGITS: tl.constexpr,
    PER_LATENT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """The soft weights from the stats: stored in weights, or, where that is None, averaged over.

    mean (rows,): the mean under the weights of grad_weights less grad_weights at the index. From there it is
    exactly 0 where one code has all the weight.
    """
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)
    inside = row < rows
    seed = read_seed(seed_value, seed_address)
    scale = base_2(inverse_temperature(temperature_value, temperature_address, temperature_type, COMPUTE))
    book = row_codebook(codebook, row, codes, latents, PER_LATENT)
    origin = tl.load(stats + ORIGIN * rows + row, mask=inside, other=0.0)
    usable = origin == origin
    origin = tl.where(usable, origin, 0.0)
    second = tl.load(stats + SECOND * rows + row, mask=inside, other=0.0)
    best = tl.load(stats + BEST * rows + row, mask=inside, other=0.0)
    log2_total = tl.load(stats + LOG2_TOTAL * rows + row, mask=inside, other=0.0)
    if weights is None:
        index = tl.load(indices + row, mask=inside, other=0)
        reference = tl.load(grad_weights + row * codes + index, mask=inside & usable, other=0.0).to(COMPUTE)

    total = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    for first in range(0, codes, 4 * BLOCKS):
        block = first // 4 + tl.arange(0, BLOCKS)[None, :]
        words = philox(block.to(tl.uint32), row + row_offset, seed)
        for j in tl.static_range(4):
            number = 4 * block + j
            _, logit = see(input, row, rows, book, number, codes, origin, second, usable, COMPUTE, IS_LOGITS)
            w = soft_weight(score(logit, words[j]), best, scale, log2_total)
            mask = inside & (number < codes)
            if weights is None:
                # A code beyond the last one weighs 0. A row that is not usable passes no gradient.
                v = tl.load(grad_weights + row * codes + number, mask=mask & usable, other=0.0).to(COMPUTE)
                total = tl.fma(w, v - reference, total)
            else:
                tl.store(weights + row * codes + number, tl.where(usable, w, float("nan")), mask=mask)
    if weights is None:
        tl.store(mean + row, tl.sum(total, axis=1, keep_dims=True), mask=inside)


@kernel
def one_hot_kernel(
    kl,
    indices,
    weights,
    rows: tl.int64,
    codes: tl.int32,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """weights (rows, codes): 1 at each row's index, 0 elsewhere; NaN in a row whose kl is NaN."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)
    inside = row < rows
    index = tl.load(indices + row, mask=inside, other=0)
    divergence = tl.load(kl + row, mask=inside, other=0.0)
    usable = divergence == divergence
    for first in range(0, codes, 4 * BLOCKS):
        code = first + tl.arange(0, 4 * BLOCKS)[None, :]
        value = tl.where(usable, tl.where(code == index, 1.0, 0.0), float("nan"))
        tl.store(weights + row * codes + code, value, mask=inside & (code < codes))


@kernel
def nearest_kernel(
    input,
    codebook,
    quantized,
    indices,
    rows: tl.int64,
    codes: tl.int32,
    latents: tl.int32,
    PER_LATENT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """quantized and indices of the nearest codes. One program: ROWS rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None].to(tl.int64)
    inside = row < rows
    book = row_codebook(codebook, row, codes, latents, PER_LATENT)
    z = tl.load(input + row, mask=inside, other=0.0).to(codebook.dtype.element_ty)
    usable = tl.abs(z) < float("inf")
    z = tl.where(usable, z, 0.0)
    if PER_LATENT:
        lowest, highest = row_range(book, codes, ROWS, BLOCKS)
    else:
        lowest, highest = shared_range(codebook, codes)
    # Far from all codes the distances would round to the same number.
    _, index = nearest_code(book, codes, tl.minimum(tl.maximum(z, lowest), highest), ROWS, BLOCKS)
    tl.store(quantized + row, tl.where(usable, tl.load(book + index), float("nan")), mask=inside)
    tl.store(indices + row, index.to(tl.int64), mask=inside)


settle_keys(globals())
