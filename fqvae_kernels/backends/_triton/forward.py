# mypy: ignore-errors
"""The Gumbel pass forward, and the nearest code, with the rows in lanes (rows.py).

Every slot of a tile keeps a lowest cost and sums of its own, and only after the last code are a row's slots
brought together, so the loop has no exchange between lanes.
"""

from __future__ import annotations

import triton.language as tl

from fqvae_kernels.backends._triton.cost import (
    EXCESS,
    LOG2_PARTITION,
    LOG2_TOTAL,
    LOWEST_COST,
    MEAN_LOGIT,
    MEAN_OFFSET,
    REFERENCE,
    base_2,
    bounded,
    cost,
    divide,
    inverse_temperature,
    log2_weight,
    weight_of,
)
from fqvae_kernels.backends._triton.jit import kernel, settle_keys
from fqvae_kernels.backends._triton.noise import exp2, philox, read_seed
from fqvae_kernels.backends._triton.rows import (
    codebook_range,
    divergence,
    is_finite,
    nearest_code,
    row_codebook,
    rows_of_program,
    see,
    stand,
)

# No row's lowest cost is above this: the lowest noise is -3.2, the nearest code's logit at least -(8 / 2)^2.
# A slot's lowest begins here, so that its multiple of 1 / temperature is rounded finely whatever the slot
# holds.
HIGHEST_COST = tl.constexpr(20.0)


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
    codebooks: tl.int32,
    row_offset: tl.int64,
    IS_LOGITS: tl.constexpr,
    HARD: tl.constexpr,
    SEVERAL_CODEBOOKS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """What is None is not wanted: an output, or stats for the backward pass. One program: ROWS rows."""
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    row = rows_of_program(ROWS)
    inside = row < rows
    seed = read_seed(seed_value, seed_address)
    scale = base_2(inverse_temperature(temperature_value, temperature_address, temperature_type, COMPUTE))
    book = row_codebook(codebook, row, codes, codebooks, SEVERAL_CODEBOOKS)
    reference, excess, usable = stand(
        input, codebook, book, row, rows, codes, COMPUTE, IS_LOGITS, SEVERAL_CODEBOOKS, ROWS, BLOCKS
    )

    lowest = tl.full([ROWS, BLOCKS], HIGHEST_COST, COMPUTE)
    index = tl.zeros([ROWS, BLOCKS], dtype=tl.int32)
    total = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    weighted = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    partition = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    weighted_logit = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    for first in range(0, codes, 4 * BLOCKS):
        block = first // 4 + tl.arange(0, BLOCKS)[None, :]
        number = 4 * block
        w0, w1, w2, w3 = philox(block.to(tl.uint32), row + row_offset, seed)
        d0, l0 = see(input, row, rows, book, number, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d1, l1 = see(input, row, rows, book, number + 1, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d2, l2 = see(input, row, rows, book, number + 2, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d3, l3 = see(input, row, rows, book, number + 3, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        c0, c1, c2, c3 = cost(l0, w0), cost(l1, w1), cost(l2, w2), cost(l3, w3)

        before = lowest
        index = tl.where(c0 < lowest, number, index)
        lowest = tl.minimum(lowest, c0)
        index = tl.where(c1 < lowest, number + 1, index)
        lowest = tl.minimum(lowest, c1)
        index = tl.where(c2 < lowest, number + 2, index)
        lowest = tl.minimum(lowest, c2)
        index = tl.where(c3 < lowest, number + 3, index)
        lowest = tl.minimum(lowest, c3)

        if stats is not None or (quantized is not None and not HARD):
            # The lowest may have fallen: bring the sums so far to the new one. Differences come first:
            # multiples of 1/temperature may be so large that their rounding is, too.
            factor = exp2((lowest - before) * scale)
            e0, e1 = exp2((lowest - c0) * scale), exp2((lowest - c1) * scale)
            e2, e3 = exp2((lowest - c2) * scale), exp2((lowest - c3) * scale)
            total = tl.fma(total, factor, (e0 + e1) + (e2 + e3))
            here = tl.fma(e0, d0, e1 * d1) + tl.fma(e2, d2, e3 * d3)
            weighted = tl.fma(weighted, factor, here)
        if kl is not None:
            q0, q1, q2, q3 = exp2(base_2(l0)), exp2(base_2(l1)), exp2(base_2(l2)), exp2(base_2(l3))
            partition += (q0 + q1) + (q2 + q3)
            weighted_logit += tl.fma(q0, bounded(l0), q1 * bounded(l1)) + tl.fma(
                q2, bounded(l2), q3 * bounded(l3)
            )

    nan = float("nan")
    row_lowest = tl.min(lowest, axis=1, keep_dims=True)
    row_index = tl.min(tl.where(lowest == row_lowest, index, codes - 1), axis=1, keep_dims=True).to(tl.int64)
    if indices is not None:
        tl.store(indices + row, row_index, mask=inside)
    if stats is not None or (quantized is not None and not HARD):
        factor = exp2((row_lowest - lowest) * scale)
        row_total = tl.sum(total * factor, axis=1, keep_dims=True)
        mean_offset = divide(tl.sum(weighted * factor, axis=1, keep_dims=True), row_total)
    if quantized is not None:
        value = tl.load(book + row_index) if HARD else reference + mean_offset
        tl.store(quantized + row, tl.where(usable, value, nan), mask=inside)
    if stats is not None:
        tl.store(stats + REFERENCE * rows + row, tl.where(usable, reference, nan), mask=inside)
        tl.store(stats + EXCESS * rows + row, excess, mask=inside)
        tl.store(stats + LOWEST_COST * rows + row, row_lowest, mask=inside)
        tl.store(stats + LOG2_TOTAL * rows + row, base_2(tl.log(row_total)), mask=inside)
        tl.store(stats + MEAN_OFFSET * rows + row, mean_offset, mask=inside)
    if kl is not None:
        row_partition = tl.sum(partition, axis=1, keep_dims=True)
        mean_logit = divide(tl.sum(weighted_logit, axis=1, keep_dims=True), row_partition)
        value_kl = divergence(mean_logit, row_partition, codes)
        tl.store(kl + row, tl.where(usable, value_kl, nan), mask=inside)
        if stats is not None:
            tl.store(stats + LOG2_PARTITION * rows + row, base_2(tl.log(row_partition)), mask=inside)
            tl.store(stats + MEAN_LOGIT * rows + row, mean_logit, mask=inside)


@kernel
def gumbel_weights_kernel(
    input,
    codebook,
    stats,
    weights,
    seed_value: tl.int64,
    seed_address: tl.int64,
    temperature_value: tl.float64,
    temperature_address: tl.int64,
    temperature_type: tl.int32,
    rows: tl.int64,
    codes: tl.int32,
    codebooks: tl.int32,
    row_offset: tl.int64,
    IS_LOGITS: tl.constexpr,
    SEVERAL_CODEBOOKS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """The soft weights from the stats."""
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    row = rows_of_program(ROWS)
    inside = row < rows
    seed = read_seed(seed_value, seed_address)
    scale = base_2(inverse_temperature(temperature_value, temperature_address, temperature_type, COMPUTE))
    book = row_codebook(codebook, row, codes, codebooks, SEVERAL_CODEBOOKS)
    reference = tl.load(stats + REFERENCE * rows + row, mask=inside, other=0.0)
    usable = reference == reference
    reference = tl.where(usable, reference, 0.0)
    excess = tl.load(stats + EXCESS * rows + row, mask=inside, other=0.0)
    lowest = tl.load(stats + LOWEST_COST * rows + row, mask=inside, other=0.0)
    log2_total = tl.load(stats + LOG2_TOTAL * rows + row, mask=inside, other=0.0)
    for first in range(0, codes, 4 * BLOCKS):
        block = first // 4 + tl.arange(0, BLOCKS)[None, :]
        words = philox(block.to(tl.uint32), row + row_offset, seed)
        for j in tl.static_range(4):
            number = 4 * block + j
            _, logit = see(
                input, row, rows, book, number, codes, reference, excess, usable, COMPUTE, IS_LOGITS
            )
            w = weight_of(log2_weight(cost(logit, words[j]), lowest, scale, log2_total))
            place = row * codes + number
            tl.store(weights + place, tl.where(usable, w, float("nan")), mask=inside & (number < codes))


@kernel
def one_hot_kernel(
    marks,
    indices,
    weights,
    rows: tl.int64,
    codes: tl.int32,
    SIZE: tl.constexpr,
):
    """weights (rows, codes): 1 at each row's index, 0 elsewhere; NaN in a row whose mark is NaN.

    One program: SIZE weights, which lie beside each other in memory.
    """
    begin = tl.program_id(0).to(tl.int64) * SIZE
    # Counted from the first row that the program meets: to divide 32 bits is cheap.
    place = (begin % codes).to(tl.int32) + tl.arange(0, SIZE)
    row = begin // codes + place // codes
    inside = row < rows
    index = tl.load(indices + row, mask=inside, other=0)
    mark = tl.load(marks + row, mask=inside, other=0.0)
    value = tl.where(mark == mark, tl.where(place % codes == index, 1.0, 0.0), float("nan"))
    tl.store(weights + begin + tl.arange(0, SIZE), value, mask=inside)


@kernel
def nearest_kernel(
    input,
    codebook,
    quantized,
    indices,
    rows: tl.int64,
    codes: tl.int32,
    codebooks: tl.int32,
    SEVERAL_CODEBOOKS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """quantized and indices of the nearest codes. One program: ROWS rows."""
    row = rows_of_program(ROWS)
    inside = row < rows
    book = row_codebook(codebook, row, codes, codebooks, SEVERAL_CODEBOOKS)
    z = tl.load(input + row, mask=inside, other=0.0).to(codebook.dtype.element_ty)
    lowest, highest, finite = codebook_range(codebook, book, codes, SEVERAL_CODEBOOKS, ROWS, BLOCKS)
    usable = is_finite(z) & finite
    z = tl.where(usable, z, 0.0)
    # Far from all codes the distances would round to the same number.
    index = nearest_code(book, codes, tl.minimum(tl.maximum(z, lowest), highest), ROWS, BLOCKS)
    if quantized is not None:
        tl.store(quantized + row, tl.where(usable, tl.load(book + index), float("nan")), mask=inside)
    if indices is not None:
        tl.store(indices + row, index.to(tl.int64), mask=inside)


settle_keys(globals())
