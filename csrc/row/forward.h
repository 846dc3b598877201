// Forward: one group of rows, a row to a lane, against all codes.
//
// Arguments that a loop reads are passed by value: behind a reference, the compiler would have to read them
// again after each store to the tile.
#pragma once

#include "score.h"

namespace fqvae {

// What every row of a call shares.
template <class Real> struct CallConstants {
    int codes;               // K
    const uint32_t *numbers; // 0, 1 ... K-1: broadcast from memory at no cost
    Real inverse_temperature;
    Real shift;       // of bounded scorers; see RowSums
    Real shift_below; // a whole number near it, which RowSums leaves out of shift and log2_total alike: they
                      // stay small
};

// What the forward pass finds out about a row; all but the index is kept for the backward pass.
template <class L> struct RowSums {
    typename L::F mean_offset;    // sum of w d: the soft quantized value, seen from the reference point
    typename L::F shift;          // log2 w = shift - cost / temperature - log2_total
    typename L::F log2_total;     //
    typename L::F log2_partition; // log2 q = logit - log2_partition
    typename L::F mean_logit;     // sum of q logit
    typename L::U index;          // the code of the lowest cost
};
constexpr int kRowSums = 5; // numbers a row that are kept

// WithPosterior: take log2_partition and mean_logit too; else they are 0, and someone else knows the KL
// (posterior.h).
template <class L, bool WithPosterior, class Scorer, class LoadTile>
FQVAE_INLINE RowSums<L> forward_row(CallConstants<typename L::Real> call, Scorer scorer,
                                    const PhiloxRow<L> &row, const PhiloxCode *code_keys,
                                    const PhiloxKeys &keys, Tile<L> &tile, LoadTile load_tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    const F zero = L::set(0), inverse_temperature = L::set(call.inverse_temperature);
    const F per_cost = zero - inverse_temperature;
    F lowest = L::set(-2 * kLowestLogit), total = zero, weighted = zero;
    F partition = zero, weighted_logit = zero, shift = L::set(call.shift);
    auto index = L::set_word(0);

    for (int first = 0; first < call.codes; first += kTileCodes) {
        const int count = call.codes - first < kTileCodes ? call.codes - first : kTileCodes;
        load_tile(first, count);
        draw_noise<L>(row, code_keys + first / 4, keys, count, tile.noise);

        const typename L::AddLog2 add_log2;
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F d = scorer.offset(first + k);
            const F cost = scorer.cost(first + k, d, L::load(tile.noise + k * width), add_log2);
            L::store(tile.offset + k * width, d);
            L::store(tile.noise + k * width, cost);
            if constexpr (WithPosterior)
                L::store(tile.logit + k * width, scorer.logit(first + k, d));
            index = L::select(L::less(cost, lowest), L::set_word(call.numbers[first + k]), index);
            lowest = L::min(cost, lowest);
        });
        if constexpr (!Scorer::kBounded) { // the minimum has fallen: bring the sums so far to the new one
            const F before = shift;
            shift = lowest * inverse_temperature;
            if (first > 0) {
                const F factor = L::exp2(shift - before);
                total = total * factor;
                weighted = weighted * factor;
            }
        }

        // Sums within a tile first: that keeps the rounding of a large codebook's sums down.
        F tile_total = zero, tile_weighted = zero, tile_partition = zero, tile_logit = zero;
        const typename L::Exp2 exp2;
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F w = exp2(L::fma(L::load(tile.noise + k * width), per_cost, shift));
            tile_total = tile_total + w;
            tile_weighted = L::fma(w, L::load(tile.offset + k * width), tile_weighted);
            if constexpr (WithPosterior) {
                const F logit = L::load(tile.logit + k * width), q = exp2(logit);
                tile_partition = tile_partition + q;
                tile_logit = L::fma(q, logit, tile_logit);
            }
        });
        total = total + tile_total;
        weighted = weighted + tile_weighted;
        partition = partition + tile_partition;
        weighted_logit = weighted_logit + tile_logit;
    }
    const F below = Scorer::kBounded ? L::set(call.shift_below) : zero;
    if constexpr (WithPosterior)
        return {weighted / total,           shift - below, L::log2(total, below), L::log2(partition, zero),
                weighted_logit / partition, index};
    else
        return {weighted / total, shift - below, L::log2(total, below), zero, zero, index};
}

// Soft weights, once the sums are known, handed to store_tile(first, count) in tile.noise. Costs still in the
// tile are used as they are; a codebook of more than one tile is scored again.
template <class L, class Scorer, class LoadTile, class StoreTile>
FQVAE_INLINE void weights_row(CallConstants<typename L::Real> call, Scorer scorer, RowSums<L> sums,
                              const PhiloxRow<L> &row, const PhiloxCode *code_keys, const PhiloxKeys &keys,
                              Tile<L> &tile, LoadTile load_tile, StoreTile store_tile) {
    using F = typename L::F;
    constexpr int width = L::width;
    const F per_cost = L::set(-call.inverse_temperature);
    for (int first = 0; first < call.codes; first += kTileCodes) {
        const int count = call.codes - first < kTileCodes ? call.codes - first : kTileCodes;
        if (call.codes > kTileCodes) {
            load_tile(first, count);
            draw_noise<L>(row, code_keys + first / 4, keys, count, tile.noise);
            const typename L::AddLog2 add_log2;
            for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
                const F log2_u = L::load(tile.noise + k * width);
                L::store(tile.noise + k * width,
                         scorer.cost(first + k, scorer.offset(first + k), log2_u, add_log2));
            });
        }
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            const F scaled = L::fma(L::load(tile.noise + k * width), per_cost, sums.shift);
            L::store(tile.noise + k * width, L::min(L::exp2(scaled - sums.log2_total), L::set(1)));
        });
        store_tile(first, count);
    }
}

} // namespace fqvae
