// What a row's program works with.
#pragma once

#include "score.h"

namespace fqvae {

// What every row of a call shares.
template <class L> struct CallConstants {
    using Real = typename L::Real;
    typename L::Numbers numbers;
    Real log2_codes; // log2 K
    Real inverse_temperature;
    Real shift;       // of bounded scorers; see RowStats
    Real shift_below; // a whole number near it, which RowStats leaves out of shift and log2_total alike: they
                      // stay small
};

// draw_noise, compiled once for all programs whose tiles lie in memory: it is the longest part of each.
template <class L>
__attribute__((noinline)) void draw_tile(const PhiloxRow<L> &row, const PhiloxCode *codes,
                                         const PhiloxKeys &keys, int count, typename L::Real *noise) {
    draw_noise<L>(row, codes, keys, count, noise);
}

// A row, or a group of them, one to a lane. It is passed by value, and what a loop reads is copied from it to
// variables of the function's own: behind a reference, the compiler would have to read it again after each
// store to the tile.
template <class L, class Scorer> struct RowContext {
    CallConstants<L> constants;
    Scorer scorer;
    const PhiloxRow<L> &philox;
    const PhiloxCode *code_keys; // of all blocks of codes
    const PhiloxKeys &keys;
    Tile<L> &tile;

    // Fills tile.noise for `count` codes from `first` on.
    FQVAE_INLINE void draw(int first, int count) const {
        if constexpr (L::padded)
            draw_noise<L>(philox, code_keys + block_of(first), keys, count, tile.noise);
        else
            draw_tile<L>(philox, code_keys + block_of(first), keys, count, tile.noise);
    }
};

} // namespace fqvae
