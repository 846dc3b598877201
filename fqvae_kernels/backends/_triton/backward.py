# mypy: ignore-errors
"""Gradients of the sampling estimators, with the codes in lanes.

A program has a share of the rows of one codebook and goes over the codes in chunks. Of a chunk it holds, as
tiles (GROUPS, ROWS, BLOCKS), the codes and the sums of their gradients, while its rows pass by, ROWS at a
time; every slot sums for itself. A row's own gradient is what is added up across lanes: once for 4 GROUPS
codes of a lane. Each warp writes its sums to a place of its own, and `sum_partials_kernel` adds those up in
their order: the same bits on every run.

With a = dL/dquantized, h = dL/dkl, v = dL/dweights; weights w, offsets d, excess e and logits l of cost.py;
and the one-hot D of the index, which stands in place of the w that is marked * where quantized is a code:
    c[k]     = a d[k] + v[k]
    ds[k]    = w[k] (c[k] - mean c)                               mean under w
    dl[k]    = ds[k] / temperature
               reinmax: (w[k] + D[k]) (c[k] - mean c) - q[k] (c[k] - mean c) / 2
                                                                  means under (w + D) / 2 and q
    dl[k]   += h q[k] (l[k] - mean l)                              mean under q
    dL/dz    = 2 sum of dl[k] d[k]                                 since the dl[k] sum to 0
    dL/dm[k] = a w*[k] + 2 dl[k] (e - d[k])
    dL/dtau  = -sum of ds[k] log(w[k] K) / temperature            since the ds[k] sum to 0; reinmax: 0
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
    clamp_code,
    cost,
    distance_logit,
    given_logit,
    inverse_temperature,
    load_codes,
    log2_weight,
    weight_of,
)
from fqvae_kernels.backends._triton.jit import kernel, settle_keys
from fqvae_kernels.backends._triton.noise import LN2, exp2, philox, read_seed
from fqvae_kernels.backends._triton.rows import row_codebook, rows_of_program, see


@triton.jit
def load_rows(pointer, row, usable, COMPUTE: tl.constexpr):
    """A number of each row, 0 for a row that is not usable."""
    return tl.load(pointer + row, mask=usable, other=0.0).to(COMPUTE)


@triton.jit
def store_sums(partials, number, tile, codebooks, own, codes, WARPS: tl.constexpr):
    """The tile (groups, rows, blocks) added up over the rows of each warp: WARPS lines of partials.

    The rows of a warp lie beside each other, so nothing is exchanged between warps. What is stored is a tile
    like the others, by its first row: one as narrow as the sums would be given a layout of its own, by way of
    shared memory and barriers.
    """
    shape: tl.constexpr = [tile.shape[0], WARPS, tile.shape[1] // WARPS, tile.shape[2]]
    warp = tl.arange(0, WARPS)[None, :, None, None]
    row_of_warp = tl.arange(0, shape[2])[None, None, :, None]
    sums = tl.sum(tl.reshape(tile, shape), axis=2, keep_dims=True)
    line = (tl.program_id(0) // codebooks) * WARPS + warp
    code = tl.expand_dims(number, 2)
    place = (line.to(tl.int64) * codebooks + own) * codes + code
    mask = (row_of_warp == 0) & (code < codes)
    tl.store(partials + tl.broadcast_to(place, shape), tl.broadcast_to(sums, shape), mask=mask)


@triton.jit
def log2_w_of(logit, word, lowest, scale, log2_total, ESTIMATOR: tl.constexpr):
    """log2 of the weight of a code, with its noise where the estimator has some."""
    own = cost(logit, word) if ESTIMATOR == "gumbel" else -logit
    return log2_weight(own, lowest, scale, log2_total)


@triton.jit
def sum_of_row(tile):
    """The tile (groups, rows, blocks) added up over a row's codes, (1, rows, 1). Groups lie in one lane."""
    return tl.sum(tl.sum(tile, axis=0, keep_dims=True), axis=2, keep_dims=True)


@kernel
def weights_mean_kernel(
    input,
    codebook,
    indices,
    stats,
    weights,
    grad_weights,
    means,
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
    ESTIMATOR: tl.constexpr,
    SEVERAL_CODEBOOKS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """means (1, rows): the mean under the weights of grad_weights less grad_weights at the index. Of reinmax
    (2, rows): that under q besides. Rows lie in lanes (rows.py).

    Seen from the index the mean is exactly 0 where one code has all the weight. weights: those of the forward
    pass, or None.
    """
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    row = rows_of_program(ROWS)
    inside = row < rows
    seed = read_seed(seed_value, seed_address)
    scale = base_2(inverse_temperature(temperature_value, temperature_address, temperature_type, COMPUTE))
    book = row_codebook(codebook, row, codes, codebooks, SEVERAL_CODEBOOKS)
    reference = tl.load(stats + REFERENCE * rows + row, mask=inside, other=float("nan"))
    usable = reference == reference
    reference = tl.where(usable, reference, 0.0)
    excess = load_rows(stats + EXCESS * rows, row, usable, COMPUTE)
    lowest = load_rows(stats + LOWEST_COST * rows, row, usable, COMPUTE)
    log2_total = load_rows(stats + LOG2_TOTAL * rows, row, usable, COMPUTE)
    if ESTIMATOR == "reinmax":
        log2_partition = load_rows(stats + LOG2_PARTITION * rows, row, usable, COMPUTE)
    index = tl.load(indices + row, mask=usable, other=0)
    at_index = load_rows(grad_weights, row * codes + index, usable, COMPUTE)

    mean = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    posterior_mean = tl.zeros([ROWS, BLOCKS], dtype=COMPUTE)
    for first in range(0, codes, 4 * BLOCKS):
        block = first // 4 + tl.arange(0, BLOCKS)[None, :]
        words = philox(block.to(tl.uint32), row + row_offset, seed)
        for j in tl.static_range(4):
            number = 4 * block + j
            mask = usable & (number < codes)
            _, logit = see(
                input, row, rows, book, number, codes, reference, excess, usable, COMPUTE, IS_LOGITS
            )
            if weights is not None:
                w = tl.load(weights + row * codes + number, mask=mask, other=0.0).to(COMPUTE)
            else:
                w = weight_of(log2_w_of(logit, words[j], lowest, scale, log2_total, ESTIMATOR))
            # A code beyond the last one weighs 0. A row that is not usable passes no gradient.
            v = tl.load(grad_weights + row * codes + number, mask=mask, other=0.0).to(COMPUTE) - at_index
            mean = tl.fma(w, v, mean)
            if ESTIMATOR == "reinmax":
                posterior_mean = tl.fma(exp2(base_2(logit) - log2_partition), v, posterior_mean)
    tl.store(means + row, tl.sum(mean, axis=1, keep_dims=True), mask=inside)
    if ESTIMATOR == "reinmax":
        tl.store(means + rows + row, tl.sum(posterior_mean, axis=1, keep_dims=True), mask=inside)


@kernel
def backward_kernel(
    input,
    codebook,
    indices,
    stats,
    weights,
    grad_quantized,
    grad_kl,
    grad_weights,
    means,
    grad_input,
    partial_codebook,
    partial_temperature,
    seed_value: tl.int64,
    seed_address: tl.int64,
    temperature_value: tl.float64,
    temperature_address: tl.int64,
    temperature_type: tl.int32,
    rows: tl.int64,
    codes: tl.int32,
    codebooks: tl.int32,
    programs: tl.int32,
    row_offset: tl.int64,
    IS_LOGITS: tl.constexpr,
    ESTIMATOR: tl.constexpr,
    GIVES_CODES: tl.constexpr,
    ONE_CHUNK: tl.constexpr,
    WARPS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Program p works for codebook p mod codebooks, and is one of `programs` that do.

    weights: those of the forward pass, which then need no noise, or None; without partial_temperature. An
    upstream gradient that is None is 0; a gradient that is None is not wanted. means: of weights_mean_kernel,
    or None, which needs ONE_CHUNK. grad_input (rows,) in the compute dtype, or like the logits.
    partial_codebook (programs, WARPS, codebooks, codes) and partial_temperature (programs, codebooks): each
    program's sums.
    """
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    REINMAX: tl.constexpr = ESTIMATOR == "reinmax"
    own = tl.program_id(0) % codebooks
    book = codebook + own.to(tl.int64) * codes
    positions = rows // codebooks
    seed = read_seed(seed_value, seed_address)
    inverse = inverse_temperature(temperature_value, temperature_address, temperature_type, COMPUTE)
    scale = base_2(inverse)
    log2_codes = base_2(tl.log(codes.to(COMPUTE)))
    group = tl.arange(0, GROUPS)[:, None, None]
    lane = tl.arange(0, BLOCKS)[None, None, :]
    d_temperature = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)

    for first in range(0, codes, 4 * GROUPS * BLOCKS):
        block = first // 4 + group * BLOCKS + lane
        number = 4 * block
        m0 = load_codes(book, number, codes)
        m1 = load_codes(book, number + 1, codes)
        m2 = load_codes(book, number + 2, codes)
        m3 = load_codes(book, number + 3, codes)
        d_m0 = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
        d_m1 = d_m0
        d_m2 = d_m0
        d_m3 = d_m0
        for step in range(tl.program_id(0) // codebooks, (positions + ROWS - 1) // ROWS, programs):
            position = tl.cast(step, tl.int64) * ROWS + tl.arange(0, ROWS)[None, :, None].to(tl.int64)
            row = position * codebooks + own
            reference = tl.load(stats + REFERENCE * rows + row, mask=position < positions, other=float("nan"))
            usable = reference == reference
            reference = tl.where(usable, reference, 0.0)
            excess = load_rows(stats + EXCESS * rows, row, usable, COMPUTE)
            mean_offset = load_rows(stats + MEAN_OFFSET * rows, row, usable, COMPUTE)
            lowest = load_rows(stats + LOWEST_COST * rows, row, usable, COMPUTE)
            log2_total = load_rows(stats + LOG2_TOTAL * rows, row, usable, COMPUTE)
            if grad_kl is not None or REINMAX:
                log2_partition = load_rows(stats + LOG2_PARTITION * rows, row, usable, COMPUTE)
            if grad_kl is not None:
                h = load_rows(grad_kl, row, usable, COMPUTE)
                mean_logit = load_rows(stats + MEAN_LOGIT * rows, row, usable, COMPUTE)
            if GIVES_CODES or grad_weights is not None:
                index = tl.load(indices + row, mask=usable, other=0)
            if grad_quantized is not None:
                a = load_rows(grad_quantized, row, usable, COMPUTE)
                if REINMAX:
                    posterior_offset = load_rows(stats + POSTERIOR_OFFSET * rows, row, usable, COMPUTE)
                    picked = clamp_code(tl.load(book + index, mask=usable, other=0.0))
                    mean_offset = 0.5 * mean_offset + 0.5 * tl.where(usable, picked - reference, 0.0)

            words = philox(block.to(tl.uint32), row + row_offset, seed)
            if grad_weights is not None:
                at_index = load_rows(grad_weights, row * codes + index, usable, COMPUTE)
                if means is not None:
                    mean_v = load_rows(means, row, usable, COMPUTE)
                    if REINMAX:
                        posterior_v = load_rows(means + rows, row, usable, COMPUTE)
                else:
                    # The compiler merges what this loop and the next one have in common.
                    sum_v = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
                    posterior_sum = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
                    for j in tl.static_range(4):
                        m = m0 if j == 0 else (m1 if j == 1 else (m2 if j == 2 else m3))
                        place = row * codes + number + j
                        inside = usable & (number + j < codes)
                        if IS_LOGITS:
                            mask = (position < positions) & (number + j < codes)
                            logit = given_logit(input + place, mask, usable, excess, COMPUTE)
                        else:
                            logit = distance_logit(m - reference, excess)
                        if weights is not None:
                            w = tl.load(weights + place, mask=inside, other=0.0).to(COMPUTE)
                        else:
                            w = weight_of(log2_w_of(logit, words[j], lowest, scale, log2_total, ESTIMATOR))
                        v = tl.load(grad_weights + place, mask=inside, other=0.0).to(COMPUTE)
                        sum_v = tl.fma(w, v - at_index, sum_v)
                        if REINMAX:
                            q = exp2(base_2(logit) - log2_partition)
                            posterior_sum = tl.fma(q, v - at_index, posterior_sum)
                    mean_v = sum_of_row(sum_v)
                    if REINMAX:
                        posterior_v = sum_of_row(posterior_sum)
                if REINMAX:
                    posterior_v += at_index
                    mean_v = 0.5 * mean_v
                mean_v += at_index

            d_z = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
            for j in tl.static_range(4):
                m = m0 if j == 0 else (m1 if j == 1 else (m2 if j == 2 else m3))
                offset = m - reference
                place = row * codes + number + j
                inside = usable & (number + j < codes)
                mask = (position < positions) & (number + j < codes)
                if IS_LOGITS:
                    logit = given_logit(input + place, mask, usable, excess, COMPUTE)
                else:
                    logit = distance_logit(offset, excess)
                if weights is not None:
                    w = tl.load(weights + place, mask=inside, other=0.0).to(COMPUTE)
                else:
                    log2_w = log2_w_of(logit, words[j], lowest, scale, log2_total, ESTIMATOR)
                    w = weight_of(log2_w)
                if grad_kl is not None or REINMAX:
                    q = exp2(base_2(logit) - log2_partition)
                if grad_weights is not None:
                    v = tl.load(grad_weights + place, mask=inside, other=0.0).to(COMPUTE)

                # Weights come first in every product: of a code far away that is 0 times a finite number.
                dl = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
                if REINMAX:
                    both = tl.where(number + j == index, 1.0 + w, w)
                    half = -0.5 * q
                    if grad_quantized is not None:
                        dl = (both * (offset - mean_offset) + half * (offset - posterior_offset)) * a
                    if grad_weights is not None:
                        dl = tl.fma(both, v - mean_v, dl)
                        dl = tl.fma(half, v - posterior_v, dl)
                else:
                    if grad_quantized is not None:
                        dl = w * (offset - mean_offset) * a
                    if grad_weights is not None:
                        dl = tl.fma(w, v - mean_v, dl)
                    if partial_temperature is not None:
                        d_temperature = tl.fma(dl, bounded(log2_w) + log2_codes, d_temperature)
                    dl = dl * inverse
                if grad_kl is not None:
                    dl = tl.fma(q * (bounded(logit) - mean_logit), h, dl)

                if partial_codebook is not None:
                    d_m = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
                    if grad_quantized is not None:
                        d_m = tl.where(number + j == index, a, 0.0) if GIVES_CODES else w * a
                    if not IS_LOGITS:
                        d_m = tl.fma(2.0 * dl, excess - offset, d_m)
                    if j == 0:
                        d_m0 += d_m
                    elif j == 1:
                        d_m1 += d_m
                    elif j == 2:
                        d_m2 += d_m
                    else:
                        d_m3 += d_m
                if grad_input is not None:
                    if IS_LOGITS:
                        tl.store(grad_input + place, dl, mask=mask)
                    else:
                        d_z = tl.fma(dl, offset, d_z)

            if grad_input is not None and not IS_LOGITS:
                # Stored by the first lane of each row, as in store_sums; that one also reads what the chunks
                # so far have made.
                sum_z = 2.0 * sum_of_row(d_z)
                mask = (position < positions) & (lane == 0)
                sum_z = tl.broadcast_to(sum_z, mask.shape)
                if not ONE_CHUNK:
                    sum_z += tl.load(grad_input + row + lane, mask=mask & (first > 0), other=0.0)
                tl.store(grad_input + row + lane, sum_z, mask=mask)

        if partial_codebook is not None:
            store_sums(partial_codebook, number, d_m0, codebooks, own, codes, WARPS)
            store_sums(partial_codebook, number + 1, d_m1, codebooks, own, codes, WARPS)
            store_sums(partial_codebook, number + 2, d_m2, codebooks, own, codes, WARPS)
            store_sums(partial_codebook, number + 3, d_m3, codebooks, own, codes, WARPS)
        if not ONE_CHUNK:
            # The next chunk reads what this one stored to grad_input.
            tl.debug_barrier()

    if partial_temperature is not None:
        sum_temperature = tl.sum(tl.reshape(d_temperature, [GROUPS * ROWS * BLOCKS]), axis=0)
        tl.store(partial_temperature + tl.program_id(0), sum_temperature * inverse * -LN2)


@kernel
def sum_partials_kernel(
    partials,
    sums,
    count: tl.int32,
    width: tl.int64,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """sums (width,): partials (count, width) added up, in the dtype of sums and in a fixed order."""
    column = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :].to(tl.int64)
    total = tl.zeros([COUNT, WIDTH], dtype=sums.dtype.element_ty)
    for first in range(0, count, COUNT):
        line = first + tl.arange(0, COUNT)[:, None]
        mask = (line < count) & (column < width)
        total += tl.load(partials + line.to(tl.int64) * width + column, mask=mask, other=0.0).to(total.dtype)
    tl.store(sums + column, tl.sum(total, axis=0, keep_dims=True), mask=column < width)


settle_keys(globals())
