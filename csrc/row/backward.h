// Backward: the noise is drawn again, the weights follow from the sums that the forward pass kept.
//
// With a = dL/dquantized, h = dL/dkl, v[k] = dL/dweights[k], offsets d and the reference point of score.h:
//     ds[k]    = w[k] (a (d[k] - mean d) + v[k] - mean v)           mean under w
//     dl[k]    = ds[k] / temperature + h q[k] (l[k] - mean l)       mean under q
//     dL/dz    = 2 sum of dl[k] d[k]                                 since the dl[k] sum to 0
//     dL/dm[k] = a w[k] + 2 dl[k] (e - d[k])
//     dL/dtau  = -sum of ds[k] log(w[k] K) / temperature              since the ds[k] sum to 0
// Taking differences from the reference point makes dl exactly 0 where one code holds all the weight, however far z is.
#pragma once

#include "forward.h"

namespace fqvae {

// What flows into a row; lanes without a row, and rows whose z is not finite, carry zeros.
template <class L> struct RowUpstream {
    typename L::F quantized;    // a
    typename L::F direct;       // a again, or 0 where the one-hot takes the direct term (hard=True: the caller adds it)
    typename L::F kl;           // h
    typename L::F reference;    // v[index]: v is seen from there, as the offsets are from the reference point
    bool weights = false;       // is there a v (tile.grad_weights)?
    bool temperature = false;   // is dL/dtau wanted?
};

template <class L> struct RowGradient {
    typename L::F input;       // dL/dz
    typename L::F temperature; // dL/dtau of each row
};

// Adds each code's gradient to codebook[k * width + lane]. With given logits, their gradient is handed to
// store_tile(first, count) in tile.given. General: with a gradient of the weights, or for the temperature.
template <class L, bool General, class Scorer, class LoadTile, class StoreTile>
FQVAE_INLINE RowGradient<L> backward_row(const CallConstants<typename L::Real> &call, const Scorer &scorer,
                                         const RowSums<L> &sums, const RowUpstream<L> &up,
                                         typename L::Real *codebook, const PhiloxRow<L> &row,
                                         const PhiloxCode *code_keys, const PhiloxKeys &keys, Tile<L> &tile,
                                         LoadTile load_tile, StoreTile store_tile) {
    using F = typename L::F;
    using Real = typename L::Real;
    constexpr int width = L::width;
    // Offsets are scaled by S and logits are base 2; dl carries a factor of 2 / S, so that dl d is the z gradient's term.
    constexpr Real to_length = static_cast<Real>(1 / Scorer::kOffsetScale);
    constexpr Real dl_scale = static_cast<Real>(Scorer::kGivenLogits ? 1 : 2 / Scorer::kOffsetScale);
    const F zero = L::set(0), inverse_temperature = L::set(call.inverse_temperature);
    const F ds_scale = L::set(call.inverse_temperature * dl_scale);
    const F slope = up.quantized * ds_scale * L::set(to_length), slope_mean = slope * sums.mean_offset;
    const F kl = up.kl * L::set(static_cast<Real>(kLn2) * dl_scale);
    const F kl_mean = kl * (sums.mean_logit - sums.log2_partition);
    const F minus_partition = zero - sums.log2_partition;
    const F log2_codes = L::set(static_cast<Real>(__builtin_log2(call.codes)));
    // Bounded scores take the partition along as the logits' base; its part is returned through the shift.
    const F minus_shift = Scorer::kBounded ? L::fma(sums.log2_partition, inverse_temperature, zero - sums.shift) -
                                                 sums.log2_total
                                           : zero - sums.shift;

    // Leaves log2 w, log2 q and d of each code in the tile.
    auto score_tile = [&](int first, int count) FQVAE_LAMBDA {
        load_tile(first, count);
        draw_noise<L>(row, code_keys + first / 4, keys, count, tile.noise);
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F d = scorer.offset(first + k);
            const F logit = scorer.logit(Scorer::kBounded ? minus_partition : zero, first + k, d);
            const F score = L::minus_log2_magnitude(logit, L::load(tile.noise + k * width));
            const F log2_w = L::fma(score, inverse_temperature, minus_shift);
            L::store(tile.noise + k * width, Scorer::kBounded ? log2_w : log2_w - sums.log2_total);
            L::store(tile.logit + k * width, Scorer::kBounded ? logit : logit - sums.log2_partition);
            L::store(tile.offset + k * width, d);
        });
    };
    auto tile_count = [&](int first) FQVAE_LAMBDA {
        return call.codes - first < kTileCodes ? call.codes - first : kTileCodes;
    };

    F weights_mean = zero; // mean of v - v[index]
    if (General && up.weights)
        for (int first = 0; first < call.codes; first += kTileCodes) {
            score_tile(first, tile_count(first));
            for_codes<4>(tile_count(first), [&](int k) FQVAE_LAMBDA {
                const F v = L::load(tile.grad_weights + k * width) - up.reference;
                weights_mean = L::fma(L::exp2(L::load(tile.noise + k * width)), v, weights_mean);
            });
        }

    RowGradient<L> gradient{zero, zero};
    for (int first = 0; first < call.codes; first += kTileCodes) {
        const int count = tile_count(first);
        if (!(General && up.weights && call.codes <= kTileCodes))
            score_tile(first, count);
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F log2_w = L::load(tile.noise + k * width), logit = L::load(tile.logit + k * width);
            const F d = L::load(tile.offset + k * width);
            const F w = L::exp2(log2_w), q = L::exp2(logit);
            F ds = slope * d - slope_mean;
            if (General && up.weights)
                ds = L::fma(L::load(tile.grad_weights + k * width) - up.reference - weights_mean, ds_scale, ds);
            ds = w * ds;
            if (General)
                gradient.temperature = L::fma(ds, log2_w + log2_codes, gradient.temperature);
            const F dl = L::fma(q, logit * kl - kl_mean, ds);
            Real *sum = codebook + (first + k) * width;
            const F direct = L::fma(w, up.direct, L::load(sum));
            if constexpr (Scorer::kGivenLogits) {
                L::store(tile.given + k * width, dl);
                L::store(sum, direct);
            } else {
                const F term = dl * d;
                gradient.input = gradient.input + term;
                L::store(sum, Scorer::kInside ? direct - term : L::fma(dl, scorer.excess(), direct - term));
            }
        });
        if constexpr (Scorer::kGivenLogits)
            store_tile(first, count);
    }
    gradient.temperature = gradient.temperature * L::set(static_cast<Real>(-kLn2) / dl_scale);
    return gradient;
}

} // namespace fqvae
