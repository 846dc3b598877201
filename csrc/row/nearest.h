// The nearest code of a row.
#pragma once

#include "score.h"

namespace fqvae {

template <class L> struct Nearest {
    typename L::F code;
    typename L::U index;
};

// z must lie within the codebook's range: clamping a far z to it changes no winner, and keeps the distances
// exact.
template <class L>
FQVAE_INLINE Nearest<L> nearest_row(const typename L::Real *codes, const uint32_t *numbers, int count,
                                    typename L::F z) {
    using F = typename L::F;
    Nearest<L> nearest{L::set(codes[0]), L::set_word(0)};
    F best = L::max(z - nearest.code, nearest.code - z);
    for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
        const F code = L::set(codes[k]), distance = L::max(z - code, code - z);
        const auto closer = L::less(distance, best);
        nearest.code = L::select(closer, code, nearest.code);
        nearest.index = L::select(closer, L::set_word(numbers[k]), nearest.index);
        best = L::min(distance, best);
    });
    return nearest;
}

} // namespace fqvae
