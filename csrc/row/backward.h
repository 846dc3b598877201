// Backward: the noise is drawn again, the weights follow from the sums that the forward pass kept.
//
// With a = dL/dquantized, h = dL/dkl, v[k] = dL/dweights[k], offsets d and the reference point of score.h:
//     ds[k]    = w[k] (a (d[k] - mean d) + v[k] - mean v)           mean under w
//     dl[k]    = ds[k] / temperature + h q[k] (l[k] - mean l)       mean under q
//     dL/dz    = 2 sum of dl[k] d[k]                                 since the dl[k] sum to 0
//     dL/dm[k] = a w[k] + 2 dl[k] (e - d[k])
//     dL/dtau  = -sum of ds[k] log(w[k] K) / temperature              since the ds[k] sum to 0
// Taking differences from the reference point makes dl exactly 0 where one code holds all the weight, however
// far z is.
#pragma once

#include "forward.h"

namespace fqvae {

// What flows into a row; lanes without a row, and rows whose z is not finite, carry zeros.
template <class L> struct RowUpstream {
    typename L::F quantized; // a
    typename L::F
        direct;       // a again, or 0 where the one-hot takes the direct term (hard=True: the caller adds it)
    typename L::F kl; // h
    typename L::F reference; // v[index]: v is seen from there, as the offsets are from the reference point
    bool weights = false;    // is there a v (tile.grad_weights)?
};

template <class L> struct RowGradient {
    typename L::F input;       // dL/dz
    typename L::F temperature; // dL/dtau of each row
};

// Leaves log2 w, log2 q and d of each code in the tile. Bounded costs are small enough to take log2_total
// together with the shift; others are first taken from the lowest cost, so that nothing is lost at low
// temperatures.
template <class L, bool WithPosterior, class Scorer>
FQVAE_INLINE void weigh_tile(int first, int count, CallConstants<L> call, Scorer scorer, RowSums<L> sums,
                             const PhiloxRow<L> &row, const PhiloxCode *code_keys, const PhiloxKeys &keys,
                             Tile<L> &tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    const F inverse_temperature = L::set(call.inverse_temperature),
            per_cost = L::set(0) - inverse_temperature;
    const F bounded_shift = sums.shift - sums.log2_total, minus_total = L::set(0) - sums.log2_total;
    draw_noise<L>(row, code_keys + block_of(first), keys, count, tile.noise);
    const typename L::AddLog2 add_log2;
    for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
        const F d = scorer.offset(first + k);
        const F cost = scorer.cost(k, d, L::load(tile.noise + k * width), add_log2);
        L::store(tile.noise + k * width, Scorer::kBounded
                                             ? L::fma(cost, per_cost, bounded_shift)
                                             : L::fma(sums.shift - cost, inverse_temperature, minus_total));
        if constexpr (WithPosterior)
            L::store(tile.logit + k * width, scorer.logit(k, d) - sums.log2_partition);
        L::store(tile.offset + k * width, d);
    });
}

// Sum of w (v - v[index]): what the gradient of the weights needs to know of a row beforehand. Leaves the
// last tile weighed.
template <class L, bool WithPosterior, class Scorer, class LoadTile>
FQVAE_INLINE typename L::F weights_mean_row(CodeRange range, CallConstants<L> call, Scorer scorer,
                                            RowSums<L> sums, RowUpstream<L> up, const PhiloxRow<L> &row,
                                            const PhiloxCode *code_keys, const PhiloxKeys &keys,
                                            Tile<L> &tile, LoadTile load_tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    F mean = L::set(0);
    for (int first = range.begin; first < range.end; first += range.step) {
        const int count = range.template count<L>(first);
        load_tile(first, count);
        weigh_tile<L, WithPosterior>(first, count, call, scorer, sums, row, code_keys, keys, tile);
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F v = L::load(tile.grad_weights + k * width) - up.reference;
            mean = L::fma(L::exp2(L::load(tile.noise + k * width)), v, mean);
        });
    }
    return mean;
}

// Adds each code's gradient to `codebook`: add(first, k, x) for code first + k of the tile that begins at
// `first`, and add(first, k, a, b), which adds a b. With given logits, their gradient is handed to
// store_tile(first, count) in tile.given. General: with a gradient of the weights, whose mean
// weights_mean_row has found, or for the temperature. weighed: has it left the only tile ready?
// WithPosterior: with the KL's gradient; else someone else sees to it (posterior.h).
template <class L, bool General, bool WithPosterior, class Scorer, class CodebookSums, class LoadTile,
          class StoreTile>
FQVAE_INLINE RowGradient<L> backward_row(CodeRange range, CallConstants<L> call, Scorer scorer,
                                         RowSums<L> sums, RowUpstream<L> up, typename L::F weights_mean,
                                         bool weighed, CodebookSums codebook, const PhiloxRow<L> &row,
                                         const PhiloxCode *code_keys, const PhiloxKeys &keys, Tile<L> &tile,
                                         LoadTile load_tile, StoreTile store_tile) {
    using F = typename L::F;
    using Real = typename L::Real;
    constexpr int width = L::width;
    // Offsets are scaled by S and logits are base 2; dl carries a factor of 2 / S, so that dl d is the z
    // gradient's term.
    constexpr Real to_length = static_cast<Real>(1 / Scorer::kOffsetScale);
    constexpr Real dl_scale = static_cast<Real>(Scorer::kGivenLogits ? 1 : 2 / Scorer::kOffsetScale);
    const F zero = L::set(0);
    const F ds_scale = L::set(call.inverse_temperature * dl_scale);
    const F slope = up.quantized * ds_scale * L::set(to_length),
            minus_slope_mean = L::set(0) - slope * sums.mean_offset;
    const F kl = up.kl * L::set(static_cast<Real>(kLn2) * dl_scale);
    const F kl_mean = kl * (sums.mean_logit - sums.log2_partition);
    const F log2_codes = L::set(call.log2_codes);

    RowGradient<L> gradient{zero, zero};
    for (int first = range.begin; first < range.end; first += range.step) {
        const int count = range.template count<L>(first);
        if (!weighed) {
            load_tile(first, count);
            weigh_tile<L, WithPosterior>(first, count, call, scorer, sums, row, code_keys, keys, tile);
        }
        const typename L::Exp2 exp2;
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F log2_w = L::load(tile.noise + k * width), d = L::load(tile.offset + k * width);
            const F w = exp2(log2_w), slope_here = L::fma(slope, d, minus_slope_mean);
            if constexpr (!General && !WithPosterior &&
                          !Scorer::kGivenLogits) { // the same in fewer operations
                const F pull = slope_here * d;
                const F rest = Scorer::kInside ? up.direct - pull
                                               : L::fma(slope_here, scorer.excess(), up.direct - pull);
                gradient.input = L::fma(w, pull, gradient.input);
                codebook.add(first, k, w, rest);
                return;
            }
            // Where the temperature may be low, the difference comes first, lest its rounding be multiplied
            // by 1 / temperature, and then the weight: of a far code that is 0 times a finite number.
            F ds = Scorer::kBounded ? w * slope_here : w * (d - sums.mean_offset) * slope;
            if (General && up.weights)
                ds = L::fma(w * (L::load(tile.grad_weights + k * width) - up.reference - weights_mean),
                            ds_scale, ds);
            if (General)
                gradient.temperature = L::fma(ds, log2_w + log2_codes, gradient.temperature);
            F dl = ds;
            if constexpr (WithPosterior) {
                const F logit = L::load(tile.logit + k * width);
                dl = L::fma(exp2(logit), logit * kl - kl_mean, ds);
            }
            if constexpr (Scorer::kGivenLogits) {
                L::store(tile.given + k * width, dl);
                codebook.add(first, k, w, up.direct);
            } else {
                const F term = dl * d, direct = L::fma(w, up.direct, zero - term);
                gradient.input = gradient.input + term;
                codebook.add(first, k, Scorer::kInside ? direct : L::fma(dl, scorer.excess(), direct));
            }
        });
        if constexpr (Scorer::kGivenLogits)
            store_tile(first, count);
    }
    gradient.temperature = gradient.temperature * L::set(static_cast<Real>(-kLn2) / dl_scale);
    return gradient;
}

} // namespace fqvae
