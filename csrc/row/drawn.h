// The estimators that draw one code a row: straight_through and reinmax.
//
// Forward: the index is the smallest k with q[0] + ... + q[k] > u, in the order of the codes, q = softmax(l).
// One uniform number u serves a row, so no logarithm stands under a code.
//
// Backward, with p = softmax(l / temperature), D the one-hot of the index, c[k] = a d[k] + v[k] (a =
// dL/dquantized, v[k] = dL/dweights[k], d the offsets of score.h) and means under p and q:
//     straight_through    dl = p (c - mean_p c) / temperature
//     reinmax             dl = (p + D) (c - (mean_p c + c[index]) / 2) - q (c - mean_q c) / 2
//     both                   + h q (l - mean_q l)                                  h = dL/dkl
// All of it is one formula with a few numbers a row (DrawnSlopes), but for the part of D, which concerns one
// code and is the caller's (`chosen`). Then
//     dL/dz = 2 sum of dl d        dL/dm[k] = a [k = index] + 2 dl (e - d)        dL/dl = dl
//     dL/dtau = -sum of p (c - mean_p c) l / temperature^2 of straight_through, 0 of reinmax.
// Nothing but the index is kept between the passes: the backward pass takes its sums anew.
#pragma once

#include "gradient.h"
#include "score.h"

namespace fqvae {

// The uniform number of each row: output 0 of Philox with counter (0, 1, n low, n high).
// row: with second word 1. code: of block 0.
template <class L>
FQVAE_INLINE typename L::F row_uniform(const PhiloxRow<L> &row, const PhiloxCode &code,
                                       const PhiloxKeys &keys) {
    typename L::U words[4];
    philox_words<L, 1>(row, &code, keys, words);
    return L::uniform(words[0]);
}

// Sums over the tiles that a caller has in hand, in their order. Masked and padded codes add exactly 0.
template <class L> struct PosteriorSums {
    using F = typename L::F;
    F partition, weighted_logit; // sums of 2^l and of 2^l l

    FQVAE_INLINE PosteriorSums() : partition(L::set(0)), weighted_logit(L::set(0)) {}

    // Leaves in tile.noise, code by code, the sum of 2^l up to that code of the last tile.
    template <bool WithKl, class Scorer, class LoadTile>
    FQVAE_INLINE void add(CodeRange range, Scorer scorer, Tile<L> &tile, LoadTile load_tile) {
        constexpr int width = L::width;
        const typename L::Exp2 exp2;
        for (int first = range.begin; first < range.end; first += range.step) {
            const int count = range.template count<L>(first);
            load_tile(first, count);
            F tile_partition = L::set(0), tile_logit = L::set(0);
            const auto add_code = [&](int k, F logit, F e) FQVAE_LAMBDA {
                tile_partition = tile_partition + e;
                L::store(tile.noise + k * width, tile_partition);
                if constexpr (WithKl)
                    tile_logit = L::fma(e, logit, tile_logit);
            };
            int k = 0;
            for (; k + 4 <= count; k += 4) {
                F logit[4], e[4];
                FQVAE_UNROLL
                for (int j = 0; j < 4; ++j)
                    logit[j] = scorer.logit(k + j, scorer.offset(first + k + j));
                exp2.together(logit, e);
                FQVAE_UNROLL
                for (int j = 0; j < 4; ++j)
                    add_code(k + j, logit[j], e[j]);
            }
            for (; k < count; ++k) {
                const F logit = scorer.logit(k, scorer.offset(first + k));
                add_code(k, logit, exp2(logit));
            }
            partition = partition + tile_partition;
            weighted_logit = weighted_logit + tile_logit;
        }
    }
};

// The index of each row: how many sums of 2^l, each up to one code, do not exceed the threshold, u times the
// partition. It lies below the partition, and sums are taken here as PosteriorSums takes them: so a code is
// found, and none that adds 0.
template <class L> struct DrawnIndex {
    using F = typename L::F;
    F below, threshold; // the partition below the codes to come
    typename L::U index;

    FQVAE_INLINE DrawnIndex(F uniform, F partition)
        : below(L::set(0)), threshold(uniform * partition), index(L::set_word(0)) {}

    FQVAE_INLINE bool found() const { return L::all(L::less(threshold, below)); } // in every lane

    // ready: PosteriorSums has left its sums of the only tile. numbers: of one code more than there are.
    template <class Scorer, class LoadTile>
    FQVAE_INLINE void search(CodeRange range, typename L::Numbers numbers, Scorer scorer, bool ready,
                             Tile<L> &tile, LoadTile load_tile) {
        constexpr int width = L::width;
        auto index_here = index;
        const F passing = threshold;
        if (ready) { // nothing lies below
            for_codes<4>(range.template count<L>(range.begin), [&](int k) FQVAE_LAMBDA {
                const auto passed = L::less(passing, L::load(tile.noise + k * width));
                index_here = L::select(passed, index_here, following(numbers, range.begin + k));
            });
            index = index_here;
            return;
        }
        const typename L::Exp2 exp2;
        for (int first = range.begin; first < range.end && !found(); first += range.step) {
            const int count = range.template count<L>(first);
            const F below_here = below;
            F within = L::set(0);
            load_tile(first, count);
            for_codes<unrolled<L, false>()>(count, [&](int k) FQVAE_LAMBDA {
                within = within + exp2(scorer.logit(k, scorer.offset(first + k)));
                const auto passed = L::less(passing, below_here + within);
                index_here = L::select(passed, index_here, following(numbers, first + k));
            });
            below = below_here + within;
        }
        index = index_here;
    }

  private:
    FQVAE_INLINE static typename L::U following(typename L::Numbers numbers, int k) {
        return L::set_word(L::number(numbers, k + 1));
    }
};

// What the backward pass wants to know of a row before it can form a gradient: sums over its codes.
template <class L> struct DrawnSums {
    using F = typename L::F;
    F total, offsets, weights;                                         // under p: of 1, d and v
    F partition, posterior_offsets, posterior_weights, weighted_logit; // under q: of 1, d, v and l

    FQVAE_INLINE DrawnSums()
        : total(L::set(0)), offsets(L::set(0)), weights(L::set(0)), partition(L::set(0)),
          posterior_offsets(L::set(0)), posterior_weights(L::set(0)), weighted_logit(L::set(0)) {}

    // Leaves 2^(l / temperature), l and d in tile.noise, tile.logit and tile.offset. v is tile.grad_weights,
    // seen from `reference`, v[index].
    template <bool WithWeights, bool WithPosterior, class Scorer, class LoadTile>
    FQVAE_INLINE void add(CodeRange range, typename L::Real inverse_temperature, Scorer scorer, F reference,
                          Tile<L> &tile, LoadTile load_tile) {
        constexpr int width = L::width;
        const typename L::Exp2 exp2;
        for (int first = range.begin; first < range.end; first += range.step) {
            const int count = range.template count<L>(first);
            weigh(first, count, inverse_temperature, scorer, tile, load_tile);
            DrawnSums part;
            for_codes<unrolled<L, !WithWeights>()>(count, [&](int k) FQVAE_LAMBDA {
                const F w = L::load(tile.noise + k * width), d = L::load(tile.offset + k * width);
                const F v = WithWeights ? L::load(tile.grad_weights + k * width) - reference : L::set(0);
                part.total = part.total + w;
                part.offsets = L::fma(w, d, part.offsets);
                if constexpr (WithWeights)
                    part.weights = L::fma(w, v, part.weights);
                if constexpr (WithPosterior) {
                    const F logit = L::load(tile.logit + k * width), e = exp2(logit);
                    part.partition = part.partition + e;
                    part.posterior_offsets = L::fma(e, d, part.posterior_offsets);
                    part.weighted_logit = L::fma(e, logit, part.weighted_logit);
                    if constexpr (WithWeights)
                        part.posterior_weights = L::fma(e, v, part.posterior_weights);
                }
            });
            add(part);
        }
    }
    FQVAE_INLINE void add(const DrawnSums &other) {
        total = total + other.total;
        offsets = offsets + other.offsets;
        weights = weights + other.weights;
        partition = partition + other.partition;
        posterior_offsets = posterior_offsets + other.posterior_offsets;
        posterior_weights = posterior_weights + other.posterior_weights;
        weighted_logit = weighted_logit + other.weighted_logit;
    }

    template <class Scorer, class LoadTile>
    static FQVAE_INLINE void weigh(int first, int count, typename L::Real inverse_temperature, Scorer scorer,
                                   Tile<L> &tile, LoadTile load_tile) {
        constexpr int width = L::width;
        const typename L::Exp2 exp2;
        const F inverse = L::set(inverse_temperature);
        load_tile(first, count);
        for_codes<unrolled<L, false>()>(count, [&](int k) FQVAE_LAMBDA {
            const F d = scorer.offset(first + k), logit = scorer.logit(k, d);
            L::store(tile.noise + k * width, exp2(logit * inverse));
            L::store(tile.logit + k * width, logit);
            L::store(tile.offset + k * width, d);
        });
    }
};

// The numbers of a row by which the loop over its codes forms dl: every one but the one-hot's part.
template <class L> struct DrawnSlopes {
    using F = typename L::F;
    using Real = typename L::Real;
    F soft, soft_weights, offset, weight; // under p: the factors of d - offset and v - weight
    F posterior, posterior_weights, posterior_offset, posterior_weight; // the same under q
    F kl, mean_logit; // under q: the factor of l - mean_logit
    F chosen;         // dl of the one-hot's part
    Real temperature; // dL/dtau is this times the sum of dl l under p

    // chosen_offset: d[index]. Offsets are scaled by S and logits are base 2 (score.h); dl carries a factor
    // of 2 / S, so that dl d is the term of dL/dz. Of given logits both factors are 1.
    template <class Scorer>
    FQVAE_INLINE static DrawnSlopes of(Scorer, bool reinmax, Real inverse_temperature,
                                       const DrawnSums<L> &sums, F grad_quantized, F grad_kl,
                                       F chosen_offset) {
        constexpr Real to_length = static_cast<Real>(1 / Scorer::kOffsetScale);
        constexpr Real dl_scale = static_cast<Real>(Scorer::kGivenLogits ? 1 : 2 / Scorer::kOffsetScale);
        const F zero = L::set(0), half = L::set(static_cast<Real>(0.5)), scale = L::set(dl_scale);
        const F slope = grad_quantized * L::set(to_length);
        const F mean_offset = sums.offsets / sums.total, mean_weight = sums.weights / sums.total;
        DrawnSlopes s;
        s.soft_weights = L::set(reinmax ? dl_scale : dl_scale * inverse_temperature) / sums.total;
        s.soft = s.soft_weights * slope;
        s.offset = reinmax ? (mean_offset + chosen_offset) * half : mean_offset;
        s.weight = reinmax ? mean_weight * half : mean_weight;
        // Of straight_through without a gradient of the KL nobody has summed under q.
        const F partition = L::select(L::less(zero, sums.partition), sums.partition, L::set(1));
        s.posterior_weights = reinmax ? zero - half * scale / partition : zero;
        s.posterior = s.posterior_weights * slope;
        s.posterior_offset = sums.posterior_offsets / partition;
        s.posterior_weight = sums.posterior_weights / partition;
        s.kl = grad_kl * L::set(static_cast<Real>(kLn2) * dl_scale) / partition;
        s.mean_logit = sums.weighted_logit / partition;
        s.chosen = reinmax ? ((chosen_offset - mean_offset) * slope - mean_weight) * half * scale : zero;
        s.temperature = reinmax ? 0 : static_cast<Real>(-kLn2) / dl_scale * inverse_temperature;
        return s;
    }
};

// The gradients of a row but for the one-hot's part, of which chosen(first, count) adds slopes.chosen to the
// given logits' gradient in tile.given, before store_tile(first, count) takes it. To dL/dz the caller adds
// slopes.chosen d[index], and to the code at the index a + slopes.chosen (e - d[index]), of given logits a
// alone. weighed: the only tile is ready. codebook: as in backward.h.
template <class L, bool WithWeights, bool WithPosterior, bool WithTemperature, class Scorer,
          class CodebookSums, class LoadTile, class Chosen, class StoreTile>
FQVAE_INLINE RowGradient<L> drawn_gradient(CodeRange range, typename L::Real inverse_temperature,
                                           Scorer scorer, DrawnSlopes<L> slopes, typename L::F reference,
                                           bool weighed, CodebookSums codebook, Tile<L> &tile,
                                           LoadTile load_tile, Chosen chosen, StoreTile store_tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    const F zero = L::set(0);
    RowGradientSums<L> sums;
    for (int first = range.begin; first < range.end; first += range.step) {
        const int count = range.template count<L>(first);
        if (!weighed)
            DrawnSums<L>::weigh(first, count, inverse_temperature, scorer, tile, load_tile);
        const typename L::Exp2 exp2;
        for_codes<unrolled<L, !WithWeights>()>(count, [&](int k) FQVAE_LAMBDA {
            const F w = L::load(tile.noise + k * width), d = L::load(tile.offset + k * width);
            const F v = WithWeights ? L::load(tile.grad_weights + k * width) - reference : zero;
            // Weights come first in every product: of a code far away that is 0 times a finite number.
            F dl = w * (d - slopes.offset) * slopes.soft;
            if constexpr (WithWeights)
                dl = L::fma(w * (v - slopes.weight), slopes.soft_weights, dl);
            if constexpr (WithTemperature)
                sums.temperature.add(dl, L::load(tile.logit + k * width));
            if constexpr (WithPosterior) {
                const F logit = L::load(tile.logit + k * width), e = exp2(logit);
                dl = L::fma(e * (d - slopes.posterior_offset), slopes.posterior, dl);
                dl = L::fma(e * (logit - slopes.mean_logit), slopes.kl, dl);
                if constexpr (WithWeights)
                    dl = L::fma(e * (v - slopes.posterior_weight), slopes.posterior_weights, dl);
            }
            if constexpr (Scorer::kGivenLogits) {
                L::store(tile.given + k * width, dl);
            } else {
                const F term = dl * d;
                sums.input.add(term);
                codebook.add(first, k,
                             Scorer::kInside ? zero - term : L::fma(dl, scorer.excess(), zero - term));
            }
        });
        if constexpr (Scorer::kGivenLogits) {
            chosen(first, count);
            store_tile(first, count);
        }
        sums.end_tile();
    }
    return sums.gradient(L::set(slopes.temperature));
}

} // namespace fqvae
