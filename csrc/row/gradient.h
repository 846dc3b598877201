// What the backward pass sums up over a row's codes.
#pragma once

#include "platform.h"

namespace fqvae {

// A sum over a row's codes, tile by tile. The sums of tiles come first, which keeps the rounding of a large
// codebook's sum down; small tiles gain nothing by that.
template <class L> struct TileSum {
    using F = typename L::F;
    F all, tile;

    FQVAE_INLINE TileSum() : all(L::set(0)), tile(L::set(0)) {}
    FQVAE_INLINE void add(F x) { tile = tile + x; }
    FQVAE_INLINE void add(F a, F b) { tile = L::fma(a, b, tile); }
    FQVAE_INLINE void end_tile() {
        if constexpr (!L::small_tiles) {
            all = all + tile;
            tile = L::set(0);
        }
    }
    FQVAE_INLINE F sum() const { return L::small_tiles ? tile : all; }
};

template <class L> struct RowGradient {
    typename L::F input;       // dL/dz
    typename L::F temperature; // dL/dtau of each row
};

template <class L> struct RowGradientSums {
    TileSum<L> input, temperature;

    FQVAE_INLINE void end_tile() {
        input.end_tile();
        temperature.end_tile();
    }
    // temperature_scale: what the temperature's terms lack.
    FQVAE_INLINE RowGradient<L> gradient(typename L::F temperature_scale) const {
        return {input.sum(), temperature.sum() * temperature_scale};
    }
};

} // namespace fqvae
