// The nearest code of a row.
#pragma once

#include <cmath>

#include "score.h"

namespace fqvae {

template <class L> struct NearestCode {
    typename L::F code, distance;
    typename L::U index;

    // `first`: code 0, which stands where no distance is a number.
    FQVAE_INLINE explicit NearestCode(typename L::Real first)
        : code(L::set(first)), distance(L::set(static_cast<typename L::Real>(INFINITY))),
          index(L::set_word(0)) {}
};

// The nearest so far: the codes [begin, begin + step ...) below `end` are added to it one tile after another.
// z must lie within the codebook's range: clamping a far z to it changes no winner, and keeps the distances
// exact.
template <class L>
FQVAE_INLINE void nearest_row(CodeRange range, const typename L::Real *codes, typename L::Numbers numbers,
                              typename L::F z, NearestCode<L> &nearest) {
    using F = typename L::F;
    auto found = nearest;
    FQVAE_UNROLL_ON_DEVICE
    for (int first = range.begin; first < range.end; first += range.step)
        for_codes<4>(range.template count<L>(first), [&](int k) FQVAE_LAMBDA {
            const F code = L::set(codes[first + k]), distance = L::magnitude(z - code);
            const auto closer = L::less(distance, found.distance);
            found.code = L::select(closer, code, found.code);
            found.index = L::select(closer, L::set_word(L::number(numbers, first + k)), found.index);
            found.distance = L::min(distance, found.distance);
        });
    nearest = found;
}

} // namespace fqvae
