# mypy: ignore-errors
"""Gradients of the Gumbel pass, with the codes in lanes.

A program has a share of the rows of one codebook and goes over the codes in chunks. Of a chunk it holds, as
tiles (GROUPS, ROWS, BLOCKS), the codes and the sums of their gradients, while its rows pass by, ROWS at a
time; every slot sums for itself. A row's own gradient is what is added up across lanes: once for 4 GROUPS
codes of a lane. Each warp writes its sums to a place of its own, and `sum_partials_kernel` adds those up in
their order: the same bits on every run.

With a = dL/dquantized, h = dL/dkl, v = dL/dweights, and offsets d, excess e and logits l of score.py:
    ds[k]    = w[k] (a (d[k] - mean d) + v[k] - mean v)           mean under w
    dl[k]    = ds[k] / temperature + h q[k] (l[k] - mean l)       mean under q
    dL/dz    = 2 sum of dl[k] d[k]                                 since the dl[k] sum to 0
    dL/dm[k] = a w[k] + 2 dl[k] (e - d[k])                        hard: a [k = index] in place of a w[k]
    dL/dtau  = -sum of ds[k] log(w[k] K) / temperature            since the ds[k] sum to 0
"""

from __future__ import annotations

import triton
import triton.language as tl

from fqvae_kernels.backends._triton.jit import kernel, settle_keys
from fqvae_kernels.backends._triton.noise import LN2, exp2, philox, read_seed
from fqvae_kernels.backends._triton.score import (
    BEST,
    LOG2_PARTITION,
    LOG2_TOTAL,
    MEAN_LOGIT,
    MEAN_OFFSET,
    ORIGIN,
    SECOND,
    base_2,
    distance_logit,
    given_logit,
    inverse_temperature,
    load_codes,
    log2_weight,
    score,
)


@triton.jit
def load_rows(pointer, row, usable, COMPUTE: tl.constexpr):
    """A number of each row, 0 for a row that is not usable."""
    return tl.load(pointer + row, mask=usable, other=0.0).to(COMPUTE)


@triton.jit
def store_sums(partials, number, tile, latents, latent, codes, WARPS: tl.constexpr):
    """The tile (groups, rows, blocks) added up over the rows of each warp: WARPS lines of partials.

    The rows of a warp lie beside each other, so nothing is exchanged between warps. What is stored is a tile
    like the others, by its first row: one as narrow as the sums would be given a layout of its own, by way of
    shared memory and barriers.
    """
    shape: tl.constexpr = [tile.shape[0], WARPS, tile.shape[1] // WARPS, tile.shape[2]]
    warp = tl.arange(0, WARPS)[None, :, None, None]
    row_of_warp = tl.arange(0, shape[2])[None, None, :, None]
    sums = tl.sum(tl.reshape(tile, shape), axis=2, keep_dims=True)
    line = (tl.program_id(0) // latents) * WARPS + warp
    code = tl.expand_dims(number, 2)
    place = (line.to(tl.int64) * latents + latent) * codes + code
    mask = (row_of_warp == 0) & (code < codes)
    tl.store(partials + tl.broadcast_to(place, shape), tl.broadcast_to(sums, shape), mask=mask)


@kernel
def gumbel_backward_kernel(
    input,
    codebook,
    indices,
    stats,
    grad_quantized,
    grad_kl,
    grad_weights,
    weights_mean,
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
    latents: tl.int32,
    programs: tl.int32,
    row_offset: tl.int64,
    IS_LOGITS: tl.constexpr,
    HARD: tl.constexpr,
    ONE_CHUNK: tl.constexpr,
    WARPS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Program p works for codebook p mod latents, and is one of `programs` that do.

    An upstream gradient that is None is 0; a gradient that is None is not wanted. grad_input (rows,) in the
    compute dtype, or like the logits. partial_codebook (programs, WARPS, latents, codes) and
    partial_temperature (programs, latents): each program's sums.
    """
    COMPUTE: tl.constexpr = codebook.dtype.element_ty
    latent = tl.program_id(0) % latents
    book = codebook + latent.to(tl.int64) * codes
    positions = rows // latents
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
        for step in range(tl.program_id(0) // latents, (positions + ROWS - 1) // ROWS, programs):
            position = tl.cast(step, tl.int64) * ROWS + tl.arange(0, ROWS)[None, :, None].to(tl.int64)
            row = position * latents + latent
            origin = tl.load(stats + ORIGIN * rows + row, mask=position < positions, other=float("nan"))
            usable = origin == origin
            origin = tl.where(usable, origin, 0.0)
            second = load_rows(stats + SECOND * rows, row, usable, COMPUTE)
            mean_offset = load_rows(stats + MEAN_OFFSET * rows, row, usable, COMPUTE)
            best = load_rows(stats + BEST * rows, row, usable, COMPUTE)
            log2_total = load_rows(stats + LOG2_TOTAL * rows, row, usable, COMPUTE)
            if grad_quantized is not None:
                a = load_rows(grad_quantized, row, usable, COMPUTE)
            if grad_kl is not None:
                h = load_rows(grad_kl, row, usable, COMPUTE)
                log2_partition = load_rows(stats + LOG2_PARTITION * rows, row, usable, COMPUTE)
                mean_logit = load_rows(stats + MEAN_LOGIT * rows, row, usable, COMPUTE)
            if HARD or grad_weights is not None:
                index = tl.load(indices + row, mask=usable, other=0)
            if grad_weights is not None:
                mean_v = load_rows(weights_mean, row, usable, COMPUTE)
                mean_v += load_rows(grad_weights, row * codes + index, usable, COMPUTE)

            words = philox(block.to(tl.uint32), row + row_offset, seed)
            d_z = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
            for j in tl.static_range(4):
                m = m0 if j == 0 else (m1 if j == 1 else (m2 if j == 2 else m3))
                offset = m - origin
                place = row * codes + number + j
                if IS_LOGITS:
                    mask = (position < positions) & (number + j < codes)
                    logit = given_logit(input + place, mask, usable, second, COMPUTE)
                else:
                    logit = distance_logit(offset, second)
                log2_w = log2_weight(score(logit, words[j]), best, scale, log2_total)
                w = tl.minimum(exp2(log2_w), 1.0)

                # Weights come first in every product: of a code far away that is 0 times a finite number.
                ds = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
                if grad_quantized is not None:
                    ds = w * (offset - mean_offset) * a
                if grad_weights is not None:
                    inside = usable & (number + j < codes)
                    v = tl.load(grad_weights + place, mask=inside, other=0.0).to(COMPUTE)
                    ds = tl.fma(w, v - mean_v, ds)
                if partial_temperature is not None:
                    d_temperature = tl.fma(ds, log2_w + log2_codes, d_temperature)
                dl = ds * inverse
                if grad_kl is not None:
                    q = exp2(base_2(logit) - log2_partition)
                    dl = tl.fma(q * (logit - mean_logit), h, dl)

                if partial_codebook is not None:
                    d_m = tl.zeros([GROUPS, ROWS, BLOCKS], dtype=COMPUTE)
                    if grad_quantized is not None:
                        d_m = tl.where(number + j == index, a, 0.0) if HARD else w * a
                    if not IS_LOGITS:
                        d_m = tl.fma(2.0 * dl, second - offset, d_m)
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
                # Groups lie in one lane. Stored by the first lane of each row, as in store_sums; that one
                # also reads what the chunks so far have made.
                sum_z = 2.0 * tl.sum(tl.sum(d_z, axis=0, keep_dims=True), axis=2, keep_dims=True)
                mask = (position < positions) & (lane == 0)
                sum_z = tl.broadcast_to(sum_z, mask.shape)
                if not ONE_CHUNK:
                    sum_z += tl.load(grad_input + row + lane, mask=mask & (first > 0), other=0.0)
                tl.store(grad_input + row + lane, sum_z, mask=mask)

        if partial_codebook is not None:
            store_sums(partial_codebook, number, d_m0, latents, latent, codes, WARPS)
            store_sums(partial_codebook, number + 1, d_m1, latents, latent, codes, WARPS)
            store_sums(partial_codebook, number + 2, d_m2, latents, latent, codes, WARPS)
            store_sums(partial_codebook, number + 3, d_m3, latents, latent, codes, WARPS)
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
