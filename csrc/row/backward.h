// Backward: the noise is drawn again, and the weights follow from the stats that the forward pass kept.
//
// With a = dL/dquantized, h = dL/dkl, v[k] = dL/dweights[k], offsets d and the reference of score.h:
//     ds[k]    = w[k] (a (d[k] - mean d) + v[k] - mean v)           mean under w
//     dl[k]    = ds[k] / temperature + h q[k] (l[k] - mean l)       mean under q
//     dL/dz    = 2 sum of dl[k] d[k]                                 since the dl[k] sum to 0
//     dL/dm[k] = a w[k] + 2 dl[k] (e - d[k])
//     dL/dtau  = -sum of ds[k] log(w[k] K) / temperature              since the ds[k] sum to 0
// Taking differences from the reference makes dl exactly 0 where one code holds all the weight, however
// far z is.
#pragma once

#include "finish.h"
#include "forward.h"
#include "gradient.h"

namespace fqvae {

// Leaves log2 w, log2 q and d of each code in the tile; of KeptWeights, which load_tile has left in
// tile.noise, w itself stays there, and no noise is drawn. Bounded costs are small enough to take log2_total
// together with the shift; of others the lowest cost is subtracted first, so that nothing is lost at low
// temperatures.
template <class L, bool WithPosterior, bool KeptWeights = false, class Scorer>
FQVAE_INLINE void weigh_tile(int first, int count, RowContext<L, Scorer> row, RowStats<L> stats) {
    using F = typename L::F;
    constexpr int width = L::width;
    const auto scorer = row.scorer;
    Tile<L> &tile = row.tile;
    const F inverse_temperature = L::set(row.constants.inverse_temperature),
            per_cost = L::set(0) - inverse_temperature;
    const F bounded_shift = stats.shift - stats.log2_total, minus_total = L::set(0) - stats.log2_total;
    const auto see = [&](int k, F d) FQVAE_LAMBDA {
        if constexpr (WithPosterior)
            L::store(tile.logit + k * width, scorer.logit(k, d) - stats.log2_partition);
        L::store(tile.offset + k * width, d);
    };
    if constexpr (KeptWeights) {
        for_codes<unrolled<L, false>()>(count, [&](int k) FQVAE_LAMBDA { see(k, scorer.offset(first + k)); });
    } else {
        const typename L::AddLog2 add_log2;
        row.draw(first, count);
        for_noise<L, Scorer::kBounded>(
            count, tile.noise, add_log2, [&](int k, const auto &log2_u) FQVAE_LAMBDA {
                const F d = scorer.offset(first + k), cost = scorer.cost(k, d, log2_u, add_log2);
                // The logarithm of a weight of 0 must not overflow: it is multiplied by that 0.
                L::store(tile.noise + k * width,
                         Scorer::kBounded
                             ? L::fma(cost, per_cost, bounded_shift)
                             : L::max(L::fma(stats.shift - cost, inverse_temperature, minus_total),
                                      L::set(kLowestLogit)));
                see(k, d);
            });
    }
}

// Sum of w (v - v[index]): what the gradient of the weights needs to know of a row beforehand. Leaves the
// last tile weighed.
template <class L, bool WithPosterior, bool KeptWeights = false, class Scorer, class LoadTile>
FQVAE_INLINE typename L::F weights_mean_row(CodeRange range, RowContext<L, Scorer> row, RowStats<L> stats,
                                            RowIncoming<L> incoming, LoadTile load_tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    Tile<L> &tile = row.tile;
    TileSum<L> mean;
    for (int first = range.begin; first < range.end; first += range.step) {
        const int count = range.template count<L>(first);
        load_tile(first, count);
        weigh_tile<L, WithPosterior, KeptWeights>(first, count, row, stats);
        const typename L::Exp2 exp2;
        for_codes<unrolled<L, false>()>(count, [&](int k) FQVAE_LAMBDA {
            const F v = L::load(tile.grad_weights + k * width) - incoming.chosen_weight;
            const F w = L::load(tile.noise + k * width);
            mean.add(KeptWeights ? w : exp2(w), v);
        });
        mean.end_tile();
    }
    return mean.sum();
}

// Adds each code's gradient to `codebook`: add(first, k, x) for code first + k of the tile that begins at
// `first`, and add(first, k, a, b), which adds a b. The gradient of given logits is handed to
// store_tile(first, count) in tile.given.
//
// General: gradients of the weights may come, or the temperature's is wanted. WithPosterior: the KL's
// gradient is taken here, not from a table (posterior.h). KeptWeights: load_tile leaves the weights of the
// forward pass in tile.noise, which needs General, and gives no gradient of the temperature. weighed:
// weights_mean_row has left the only tile weighed.
template <class L, bool General, bool WithPosterior, bool KeptWeights = false, class Scorer,
          class CodebookSums, class LoadTile, class StoreTile>
FQVAE_INLINE RowGradient<L> backward_row(CodeRange range, RowContext<L, Scorer> row, RowStats<L> stats,
                                         RowIncoming<L> incoming, bool weighed, CodebookSums codebook,
                                         LoadTile load_tile, StoreTile store_tile) {
    static_assert(General || !KeptWeights);
    using F = typename L::F;
    using Real = typename L::Real;
    constexpr int width = L::width;
    const auto scorer = row.scorer;
    Tile<L> &tile = row.tile;
    // Offsets are scaled by S and logits are base 2; dl carries a factor of 2 / S, so that dl d is the z
    // gradient's term.
    constexpr Real to_length = static_cast<Real>(1 / Scorer::kOffsetScale);
    constexpr Real dl_scale = static_cast<Real>(Scorer::kGivenLogits ? 1 : 2 / Scorer::kOffsetScale);
    const F zero = L::set(0);
    const F ds_scale = L::set(row.constants.inverse_temperature * dl_scale);
    const F slope = incoming.quantized * ds_scale * L::set(to_length),
            minus_slope_mean = L::set(0) - slope * stats.mean_offset;
    const F kl = incoming.kl * L::set(static_cast<Real>(kLn2) * dl_scale);
    const F mean_logit = stats.mean_logit - stats.log2_partition, kl_mean = kl * mean_logit;
    const F log2_codes = L::set(row.constants.log2_codes);

    RowGradientSums<L> sums;
    for (int first = range.begin; first < range.end; first += range.step) {
        const int count = range.template count<L>(first);
        if (!weighed) {
            load_tile(first, count);
            weigh_tile<L, WithPosterior, KeptWeights>(first, count, row, stats);
        }
        const typename L::Exp2 exp2;
        for_codes<unrolled<L, !General>()>(count, [&](int k) FQVAE_LAMBDA {
            const F weight = L::load(tile.noise + k * width), d = L::load(tile.offset + k * width);
            const F w = KeptWeights ? weight : exp2(weight), slope_here = L::fma(slope, d, minus_slope_mean);
            if constexpr (!General && !WithPosterior && Scorer::kBounded) { // the same in fewer operations
                const F pull = slope_here * d;
                const F rest = Scorer::kInside ? incoming.direct - pull
                                               : L::fma(slope_here, scorer.excess(), incoming.direct - pull);
                sums.input.add(w, pull);
                codebook.add(first, k, w, rest);
                return;
            }
            // Where the temperature may be low, the difference comes first, lest its rounding be multiplied
            // by 1 / temperature, and then the weight: of a far code that is 0 times a finite number.
            F ds = Scorer::kBounded ? w * slope_here : w * (d - stats.mean_offset) * slope;
            if (General && incoming.weights) {
                const F v = L::load(tile.grad_weights + k * width) - incoming.chosen_weight;
                ds = L::fma(w * (v - incoming.weights_mean), ds_scale, ds);
            }
            if constexpr (General && !KeptWeights)
                sums.temperature.add(ds, weight + log2_codes);
            F dl = ds;
            if constexpr (WithPosterior) {
                const F logit = L::load(tile.logit + k * width);
                // As above: of the lowest logit q is 0, and the product with the rest must not overflow.
                dl = Scorer::kBounded ? L::fma(exp2(logit), logit * kl - kl_mean, ds)
                                      : L::fma(exp2(logit) * (logit - mean_logit), kl, ds);
            }
            if constexpr (Scorer::kGivenLogits) {
                L::store(tile.given + k * width, dl);
                codebook.add(first, k, w, incoming.direct);
            } else {
                const F term = dl * d, direct = L::fma(w, incoming.direct, zero - term);
                sums.input.add(dl, d);
                codebook.add(first, k, Scorer::kInside ? direct : L::fma(dl, scorer.excess(), direct));
            }
        });
        if constexpr (Scorer::kGivenLogits)
            store_tile(first, count);
        sums.end_tile();
    }
    return sums.gradient(L::set(static_cast<Real>(-kLn2) / dl_scale));
}

} // namespace fqvae
