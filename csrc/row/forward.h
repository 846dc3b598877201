// Forward: one group of rows, a row to a lane, against all codes.
#pragma once

#include "context.h"
#include "slopes.h"
#include "stats.h"

namespace fqvae {

// The sums over a row's codes, tile by tile. WithPosterior: partition and weighted_logit are taken too;
// else they stay 0, and the KL comes from a table (posterior.h). WithSlopes: the sums of slopes.h are taken,
// and `weighted` stays 0.
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
    FQVAE_INLINE void add(Range range, RowContext<L, Scorer> row, LoadTile load_tile) {
        constexpr int together = 64;
        for (int begin = range.begin; begin < range.end; begin += together * range.step) {
            ForwardSums part = *this;
            part.total = part.weighted = part.partition = part.weighted_logit = L::set(0);
            part.slopes = SlopeSums<L>(slopes.centre);
            const bool last = range.end - begin <= together * range.step;
            const int end = last ? range.end : begin + together * range.step;
            const auto add_tile = [&](int first) FQVAE_LAMBDA {
                part.add_tile(first, range.template count<L>(first), row, load_tile);
            };
            for (int first = begin; first < end; first += Range::tiles * range.step) {
                FQVAE_UNROLL
                for (int i = 0; i < Range::tiles; ++i)
                    add_tile(first + i * range.step);
            }
            part.continue_from(*this, row.constants);
            *this = part;
        }
    }

    FQVAE_INLINE RowStats<L> finish(const CallConstants<L> &constants) const {
        const F zero = L::set(0), below = Scorer::kBounded ? L::set(constants.shift_below) : zero;
        const F shift = Scorer::kBounded ? L::set(constants.shift - constants.shift_below) : lowest;
        RowStats<L> stats{WithSlopes ? slopes.mean_offset(total) : weighted / total,
                          shift,
                          L::log2(total, below),
                          zero,
                          zero,
                          index};
        if constexpr (WithPosterior) {
            stats.log2_partition = L::log2(partition, zero);
            stats.mean_logit = weighted_logit / partition;
        }
        return stats;
    }

  private:
    // What the sums so far are to be multiplied by when the lowest cost has fallen.
    FQVAE_INLINE F since(const F &before, const CallConstants<L> &constants) const {
        return Scorer::kBounded ? L::set(1)
                                : L::exp2((lowest - before) * L::set(constants.inverse_temperature));
    }

    // Adds the sums up to the codes that these are for.
    FQVAE_INLINE void continue_from(const ForwardSums &before, const CallConstants<L> &constants) {
        const F factor = since(before.lowest, constants);
        if constexpr (WithSlopes) {
            SlopeSums<L> others = before.slopes;
            others.move(factor, slopes.centre, before.total * factor, L::set(constants.inverse_temperature));
            slopes.add(others);
        }
        total = L::fma(before.total, factor, total);
        weighted = L::fma(before.weighted, factor, weighted);
        partition = before.partition + partition;
        weighted_logit = before.weighted_logit + weighted_logit;
    }

    template <class LoadTile>
    FQVAE_INLINE void add_tile(int first, int count, RowContext<L, Scorer> row, LoadTile load_tile) {
        constexpr int width = L::width;
        const auto constants = row.constants;
        const auto scorer = row.scorer;
        Tile<L> &tile = row.tile;
        const F zero = L::set(0), inverse_temperature = L::set(constants.inverse_temperature);
        const F per_cost = zero - inverse_temperature, shift = L::set(constants.shift), before = lowest;
        load_tile(first, count);
        row.draw(first, count);

        F lowest_here = lowest, centre = slopes.centre;
        auto index_here = index;
        const typename L::AddLog2 add_log2;
        for_noise<L>(count, tile.noise, add_log2, [&](int k, const auto &log2_u) FQVAE_LAMBDA {
            const F d = scorer.offset(first + k);
            const F cost = scorer.cost(k, d, log2_u, add_log2);
            L::store(tile.offset + k * width, d);
            L::store(tile.noise + k * width, cost);
            if constexpr (WithPosterior)
                L::store(tile.logit + k * width, scorer.logit(k, d));
            const auto lower = L::less(cost, lowest_here);
            index_here = L::select(lower, L::set_word(L::number(constants.numbers, first + k)), index_here);
            if constexpr (WithSlopes)
                centre = L::select(lower, d, centre);
            lowest_here = L::min(cost, lowest_here);
        });
        lowest = lowest_here;
        index = index_here;
        const F factor = since(before, constants);
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

// Soft weights, once the stats are known, handed to store_tile(first, count) in tile.noise. has_costs: the
// only tile still holds its costs; else they are computed again.
template <class L, class Scorer, class LoadTile, class StoreTile>
FQVAE_INLINE void weights_row(CodeRange range, RowContext<L, Scorer> row, RowStats<L> stats, bool has_costs,
                              LoadTile load_tile, StoreTile store_tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    const auto scorer = row.scorer;
    Tile<L> &tile = row.tile;
    const F inverse_temperature = L::set(row.constants.inverse_temperature),
            per_cost = L::set(0) - inverse_temperature;
    for (int first = range.begin; first < range.end; first += range.step) {
        const int count = range.template count<L>(first);
        if (!has_costs) {
            load_tile(first, count);
            row.draw(first, count);
            const typename L::AddLog2 add_log2;
            for_noise<L>(count, tile.noise, add_log2, [&](int k, const auto &log2_u) FQVAE_LAMBDA {
                L::store(tile.noise + k * width, scorer.cost(k, scorer.offset(first + k), log2_u, add_log2));
            });
        }
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F cost = L::load(tile.noise + k * width);
            const F scaled = Scorer::kBounded ? L::fma(cost, per_cost, stats.shift)
                                              : (stats.shift - cost) * inverse_temperature;
            L::store(tile.noise + k * width, L::min(L::exp2(scaled - stats.log2_total), L::set(1)));
        });
        store_tile(first, count);
    }
}

} // namespace fqvae
