# mypy: ignore-errors
"""Forward pass of the estimators that draw the index from the posterior: straight_through and reinmax.

The index is the smallest k with q[0] + ... + q[k] > u, one uniform number u a row. Rows lie in lanes
(rows.py), but here each lane has a share of neighbouring codes, and walks along them. So a running sum needs
no exchange between lanes, and only the lanes' sums are added up in their order. The running sums carry along
what their rounding has lost: however many codes there are, a boundary is off by a few roundings of the total.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fqvae_kernels.backends._triton.cost import (
    EXCESS,
    LOG2_PARTITION,
    LOG2_TOTAL,
    LOWEST_COST,
    MEAN_LOGIT,
    MEAN_OFFSET,
    POSTERIOR_OFFSET,
    REFERENCE,
    base_2,
    bounded,
    divide,
    inverse_temperature,
)
from fqvae_kernels.backends._triton.jit import kernel, settle_keys
from fqvae_kernels.backends._triton.noise import exp2, read_seed, row_uniform
from fqvae_kernels.backends._triton.rows import (
    divergence,
    row_codebook,
    rows_of_program,
    see,
    stand,
)


@triton.jit
def add_exactly(total, lost, term):
    """total + term - lost, and what its rounding has lost: a step of Kahan's sum."""
    part = term - lost
    after = total + part
    return after, (after - total) - part


@triton.jit
def pick(index, number, q, before, target):
    """The number of a code in place of index, if it weighs anything and those before it do not exceed target.

    The last such code is the smallest k with q[0] + ... + q[k] > target.
    """
    return tl.where((before <= target) & (q > 0.0), number, index)


@kernel
def drawn_forward_kernel(
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
    REINMAX: tl.constexpr,
    SEVERAL_CODEBOOKS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """What is None is not wanted: an output, or stats for the backward pass. One program: ROWS rows.

    REINMAX: stats are those of reinmax.
    """
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    row = rows_of_program(ROWS)
    inside = row < rows
    book = row_codebook(codebook, row, codes, codebooks, SEVERAL_CODEBOOKS)
    reference, excess, usable = stand(
        input, codebook, book, row, rows, codes, COMPUTE, IS_LOGITS, SEVERAL_CODEBOOKS, ROWS, BLOCKS
    )
    share = 4 * ((codes + 4 * BLOCKS - 1) // (4 * BLOCKS))
    begin = share * tl.arange(0, BLOCKS)[None, :]

    partition = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    lost = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    weighted_logit = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    weighted = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    largest = tl.full([ROWS, BLOCKS], -float("inf"), COMPUTE)
    for first in range(0, share, 4):
        number = begin + first
        d0, l0 = see(input, row, rows, book, number, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d1, l1 = see(input, row, rows, book, number + 1, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d2, l2 = see(input, row, rows, book, number + 2, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d3, l3 = see(input, row, rows, book, number + 3, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        q0, q1, q2, q3 = exp2(base_2(l0)), exp2(base_2(l1)), exp2(base_2(l2)), exp2(base_2(l3))
        partition, lost = add_exactly(partition, lost, ((q0 + q1) + q2) + q3)
        if kl is not None:
            weighted_logit += tl.fma(q0, bounded(l0), q1 * bounded(l1)) + tl.fma(
                q2, bounded(l2), q3 * bounded(l3)
            )
        if stats is not None:
            largest = tl.maximum(tl.maximum(largest, tl.maximum(l0, l1)), tl.maximum(l2, l3))
            if REINMAX:
                weighted += tl.fma(q0, d0, q1 * d1) + tl.fma(q2, d2, q3 * d3)

    row_partition = tl.sum(partition, axis=1, keep_dims=True)
    u = row_uniform(row + row_offset, read_seed(seed_value, seed_address), COMPUTE)
    # How far into each lane's codes the target lies; in front of a lane that it does not reach.
    target = tl.broadcast_to(u * row_partition, [ROWS, BLOCKS])
    if BLOCKS > 1:
        target -= tl.cumsum(partition, axis=1) - partition
    if stats is not None:
        row_largest = tl.max(largest, axis=1, keep_dims=True)
        scale = base_2(inverse_temperature(temperature_value, temperature_address, temperature_type, COMPUTE))

    index = tl.full([ROWS, BLOCKS], 0, tl.int32)
    running = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    lost = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    total = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    weighted_soft = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    for first in range(0, share, 4):
        number = begin + first
        d0, l0 = see(input, row, rows, book, number, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d1, l1 = see(input, row, rows, book, number + 1, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d2, l2 = see(input, row, rows, book, number + 2, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        d3, l3 = see(input, row, rows, book, number + 3, codes, reference, excess, usable, COMPUTE, IS_LOGITS)
        q0, q1, q2, q3 = exp2(base_2(l0)), exp2(base_2(l1)), exp2(base_2(l2)), exp2(base_2(l3))
        index = pick(index, number, q0, running, target)
        index = pick(index, number + 1, q1, running + (q0 - lost), target)
        index = pick(index, number + 2, q2, running + ((q0 + q1) - lost), target)
        index = pick(index, number + 3, q3, running + (((q0 + q1) + q2) - lost), target)
        running, lost = add_exactly(running, lost, ((q0 + q1) + q2) + q3)
        if stats is not None:
            e0, e1 = exp2((l0 - row_largest) * scale), exp2((l1 - row_largest) * scale)
            e2, e3 = exp2((l2 - row_largest) * scale), exp2((l3 - row_largest) * scale)
            total += (e0 + e1) + (e2 + e3)
            weighted_soft += tl.fma(e0, d0, e1 * d1) + tl.fma(e2, d2, e3 * d3)

    nan = float("nan")
    # A lane that the target does not reach has picked nothing; of the others the last one counts.
    row_index = tl.max(index, axis=1, keep_dims=True).to(tl.int64)
    if quantized is not None:
        tl.store(quantized + row, tl.where(usable, tl.load(book + row_index), nan), mask=inside)
    if indices is not None:
        tl.store(indices + row, row_index, mask=inside)
    if kl is not None:
        mean_logit = divide(tl.sum(weighted_logit, axis=1, keep_dims=True), row_partition)
        value_kl = divergence(mean_logit, row_partition, codes)
        tl.store(kl + row, tl.where(usable, value_kl, nan), mask=inside)
    if stats is not None:
        row_total = tl.sum(total, axis=1, keep_dims=True)
        mean_offset = divide(tl.sum(weighted_soft, axis=1, keep_dims=True), row_total)
        tl.store(stats + REFERENCE * rows + row, tl.where(usable, reference, nan), mask=inside)
        tl.store(stats + EXCESS * rows + row, excess, mask=inside)
        tl.store(stats + LOWEST_COST * rows + row, -row_largest, mask=inside)
        tl.store(stats + LOG2_TOTAL * rows + row, base_2(tl.log(row_total)), mask=inside)
        tl.store(stats + MEAN_OFFSET * rows + row, mean_offset, mask=inside)
        if kl is not None:
            tl.store(stats + MEAN_LOGIT * rows + row, mean_logit, mask=inside)
        if kl is not None or REINMAX:
            tl.store(stats + LOG2_PARTITION * rows + row, base_2(tl.log(row_partition)), mask=inside)
        if REINMAX:
            posterior_offset = divide(tl.sum(weighted, axis=1, keep_dims=True), row_partition)
            tl.store(stats + POSTERIOR_OFFSET * rows + row, posterior_offset, mask=inside)


settle_keys(globals())
