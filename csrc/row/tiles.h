// How a platform cuts a row's codes into tiles, which go through the stages of a row's program one after
// another. A lane type derives from one of these.
#pragma once

#include <cstdint>

#include "platform.h"

namespace fqvae {

// On a CPU a tile lies in the first-level cache. The last one of a row may be smaller than the others.
struct TilesInMemory {
    static constexpr int tile_codes = 64;
    static constexpr bool small_tiles = false; // true: tiles are so small that partial sums gain nothing
    static constexpr bool padded = false;
    static constexpr int in_step = 1;           // so many codes' logarithms are computed in step
    static constexpr int tile_alignment = 4096; // see Tile
    using Numbers = const uint32_t *;           // 0, 1 ... K-1: broadcast from memory at no cost
    static Numbers numbers(const uint32_t *table) { return table; }
    FQVAE_INLINE static uint32_t number(Numbers table, int k) { return table[k]; }
};

// On a GPU it lies in registers: a block of Philox. The codebook is padded with codes that never win and
// whose weight is 0 (score.h), so that all tiles are alike.
struct TilesInRegisters {
    static constexpr int tile_codes = 4;
    static constexpr bool small_tiles = true;
    static constexpr bool padded = true;
    static constexpr int in_step = 1;
    static constexpr int tile_alignment = 16;
    using Numbers = uint32_t; // the number of the first code in hand
    static Numbers numbers(const uint32_t *) { return 0; }
    FQVAE_INLINE static uint32_t number(Numbers first, int k) { return first + static_cast<uint32_t>(k); }
};

// Which block of four codes begins at this one.
FQVAE_INLINE int block_of(int first_code) { return static_cast<int>(static_cast<unsigned>(first_code) / 4); }

// The tiles that a caller has in hand: they begin at codes begin, begin + step ... below end.
struct CodeRange {
    int begin, end, step;

    template <class L> FQVAE_INLINE static CodeRange all(int codes) { return {0, codes, L::tile_codes}; }
    template <class L> FQVAE_INLINE int count(int first) const { // codes of the tile that begins at `first`
        return L::padded || end - first >= L::tile_codes ? L::tile_codes : end - first;
    }
    FQVAE_INLINE bool one_tile() const { return end - begin <= step; }
    static constexpr int tiles = 1; // that a turn of the loop over them takes
};

// All tiles of a row, for a caller that holds them alone, two at a time: where tiles are small, what a loop
// does around them counts. The codebook must be padded to whole pairs.
template <class L> struct PairsOfTiles {
    int end;
    static constexpr int begin = 0, step = L::tile_codes, tiles = 2;

    template <class> FQVAE_INLINE int count(int) const {
        static_assert(L::padded);
        return L::tile_codes;
    }
};

} // namespace fqvae
