// Forward: one group of rows, a row to a lane, against all codes.
//
// Arguments that a loop reads are passed by value: behind a reference, the compiler would have to read them
// again after each store to the tile.
#pragma once

#include "slopes.h"

namespace fqvae {

// What every row of a call shares.
template <class L> struct CallConstants {
    using Real = typename L::Real;
    typename L::Numbers numbers;
    Real log2_codes; // log2 K
    Real inverse_temperature;
    Real shift;       // of bounded scorers; see RowSums
    Real shift_below; // a whole number near it, which RowSums leaves out of shift and log2_total alike: they
                      // stay small
};

// What the forward pass finds out about a row. All but the index is for the backward pass.
template <class L> struct RowSums {
    typename L::F mean_offset; // sum of w d: the soft quantized value, seen from the reference point
    // log2 w = shift - cost / temperature - log2_total of bounded scorers; of others, where shift is the
    // lowest cost, (shift - cost) / temperature - log2_total.
    typename L::F shift, log2_total;
    typename L::F log2_partition; // log2 q = logit - log2_partition
    typename L::F mean_logit;     // sum of q logit
    typename L::U index;          // the code of the lowest cost
};
constexpr int kRowSums = 5; // numbers a row that are kept

// The sums over a row's codes, tile by tile. WithPosterior: take partition and weighted_logit too; else they
// stay 0, and someone else knows the KL (posterior.h). WithSlopes: take those of slopes.h, for which
// `weighted` is then left at 0.
template <class L, bool WithPosterior, class Scorer, bool WithSlopes = false> struct ForwardSums {
    static_assert(!WithSlopes || (WithPosterior && L::small_tiles));
    using F = typename L::F;
    F lowest, total, weighted; // total, weighted: of weights times a power of 2, which for bounded scorers is
                               // the call's shift, and else makes the weight of the lowest cost 1
    F partition, weighted_logit;
    typename L::U index;
    SlopeSums<L> slopes;

    FQVAE_INLINE ForwardSums()
        : lowest(L::set(-2 * kLowestLogit)), total(L::set(0)), weighted(L::set(0)), partition(L::set(0)),
          weighted_logit(L::set(0)), index(L::set_word(0)), slopes(L::set(0)) {}

    // Sums of neighbouring tiles come first: that keeps the rounding of a large codebook's sums down.
    template <class Range, class LoadTile>
    FQVAE_INLINE void add(Range range, CallConstants<L> call, Scorer scorer, const PhiloxRow<L> &row,
                          const PhiloxCode *code_keys, const PhiloxKeys &keys, Tile<L> &tile,
                          LoadTile load_tile) {
        constexpr int together = 64;
        for (int begin = range.begin; begin < range.end; begin += together * range.step) {
            ForwardSums part = *this;
            part.total = part.weighted = part.partition = part.weighted_logit = L::set(0);
            part.slopes = SlopeSums<L>(slopes.centre);
            const bool last = range.end - begin <= together * range.step;
            const int end = last ? range.end : begin + together * range.step;
            const auto add_tile = [&](int first) FQVAE_LAMBDA {
                part.add_tile(first, range.template count<L>(first), call, scorer, row, code_keys, keys, tile,
                              load_tile);
            };
            for (int first = begin; first < end; first += Range::tiles * range.step) {
                FQVAE_UNROLL
                for (int i = 0; i < Range::tiles; ++i)
                    add_tile(first + i * range.step);
            }
            part.continue_from(*this, call);
            *this = part;
        }
    }

    FQVAE_INLINE RowSums<L> finish(const CallConstants<L> &call) const {
        const F zero = L::set(0), below = Scorer::kBounded ? L::set(call.shift_below) : zero;
        const F shift = Scorer::kBounded ? L::set(call.shift - call.shift_below) : lowest;
        RowSums<L> sums{WithSlopes ? slopes.mean_offset(total) : weighted / total,
                        shift,
                        L::log2(total, below),
                        zero,
                        zero,
                        index};
        if constexpr (WithPosterior) {
            sums.log2_partition = L::log2(partition, zero);
            sums.mean_logit = weighted_logit / partition;
        }
        return sums;
    }

  private:
    // What the sums so far are to be multiplied by when the lowest cost has fallen.
    FQVAE_INLINE F since(const F &before, const CallConstants<L> &call) const {
        return Scorer::kBounded ? L::set(1) : L::exp2((lowest - before) * L::set(call.inverse_temperature));
    }

    // Adds the sums up to the codes that these are for.
    FQVAE_INLINE void continue_from(const ForwardSums &before, const CallConstants<L> &call) {
        const F factor = since(before.lowest, call);
        if constexpr (WithSlopes) {
            SlopeSums<L> others = before.slopes;
            others.move(factor, slopes.centre, before.total * factor, L::set(call.inverse_temperature));
            slopes.add(others);
        }
        total = L::fma(before.total, factor, total);
        weighted = L::fma(before.weighted, factor, weighted);
        partition = before.partition + partition;
        weighted_logit = before.weighted_logit + weighted_logit;
    }

    template <class LoadTile>
    FQVAE_INLINE void add_tile(int first, int count, CallConstants<L> call, Scorer scorer,
                               const PhiloxRow<L> &row, const PhiloxCode *code_keys, const PhiloxKeys &keys,
                               Tile<L> &tile, LoadTile load_tile) {
        constexpr int width = L::width;
        const F zero = L::set(0), inverse_temperature = L::set(call.inverse_temperature);
        const F per_cost = zero - inverse_temperature, shift = L::set(call.shift), before = lowest;
        load_tile(first, count);
        draw_noise<L>(row, code_keys + block_of(first), keys, count, tile.noise);

        F lowest_here = lowest, centre = slopes.centre;
        auto index_here = index;
        const typename L::AddLog2 add_log2;
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F d = scorer.offset(first + k);
            const F cost = scorer.cost(k, d, L::load(tile.noise + k * width), add_log2);
            L::store(tile.offset + k * width, d);
            L::store(tile.noise + k * width, cost);
            if constexpr (WithPosterior)
                L::store(tile.logit + k * width, scorer.logit(k, d));
            const auto lower = L::less(cost, lowest_here);
            index_here = L::select(lower, L::set_word(L::number(call.numbers, first + k)), index_here);
            if constexpr (WithSlopes)
                centre = L::select(lower, d, centre);
            lowest_here = L::min(cost, lowest_here);
        });
        lowest = lowest_here;
        index = index_here;
        const F factor = since(before, call);
        if constexpr (!Scorer::kBounded) {
            total = total * factor;
            weighted = weighted * factor;
        }
        if constexpr (WithSlopes)
            slopes.move(factor, centre, total, inverse_temperature);

        F tile_total = zero, tile_weighted = zero, tile_partition = zero, tile_logit = zero;
        if constexpr (L::small_tiles) {
            tile_total = total, tile_weighted = weighted;
            tile_partition = partition, tile_logit = weighted_logit;
        }
        const typename L::Exp2 exp2;
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F cost = L::load(tile.noise + k * width);
            const F w = exp2(Scorer::kBounded ? L::fma(cost, per_cost, shift)
                                              : (lowest_here - cost) * inverse_temperature);
            const F d = L::load(tile.offset + k * width);
            tile_total = tile_total + w;
            if constexpr (WithSlopes)
                slopes.add(w, d, inverse_temperature);
            else
                tile_weighted = L::fma(w, d, tile_weighted);
            if constexpr (WithPosterior) {
                const F logit = L::load(tile.logit + k * width), q = exp2(logit);
                tile_partition = tile_partition + q;
                tile_logit = L::fma(q, logit, tile_logit);
                if constexpr (WithSlopes)
                    slopes.add_posterior(q, q * logit, d);
            }
        });
        if constexpr (L::small_tiles) {
            total = tile_total, weighted = tile_weighted;
            partition = tile_partition, weighted_logit = tile_logit;
        } else {
            total = total + tile_total, weighted = weighted + tile_weighted;
            partition = partition + tile_partition, weighted_logit = weighted_logit + tile_logit;
        }
    }
};

// Soft weights, once the sums are known, handed to store_tile(first, count) in tile.noise. scored: does the
// only tile still hold its costs? Else tiles are scored again.
template <class L, class Scorer, class LoadTile, class StoreTile>
FQVAE_INLINE void weights_row(CodeRange range, CallConstants<L> call, Scorer scorer, RowSums<L> sums,
                              bool scored, const PhiloxRow<L> &row, const PhiloxCode *code_keys,
                              const PhiloxKeys &keys, Tile<L> &tile, LoadTile load_tile,
                              StoreTile store_tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    const F inverse_temperature = L::set(call.inverse_temperature),
            per_cost = L::set(0) - inverse_temperature;
    for (int first = range.begin; first < range.end; first += range.step) {
        const int count = range.template count<L>(first);
        if (!scored) {
            load_tile(first, count);
            draw_noise<L>(row, code_keys + block_of(first), keys, count, tile.noise);
            const typename L::AddLog2 add_log2;
            for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
                const F log2_u = L::load(tile.noise + k * width);
                L::store(tile.noise + k * width, scorer.cost(k, scorer.offset(first + k), log2_u, add_log2));
            });
        }
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F cost = L::load(tile.noise + k * width);
            const F scaled = Scorer::kBounded ? L::fma(cost, per_cost, sums.shift)
                                              : (sums.shift - cost) * inverse_temperature;
            L::store(tile.noise + k * width, L::min(L::exp2(scaled - sums.log2_total), L::set(1)));
        });
        store_tile(first, count);
    }
}

} // namespace fqvae
