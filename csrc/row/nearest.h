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

// Far from its nearest code, the distances of several codes round to the same number, and nearest_row takes
// the first of them. Seen from that one, a code that is really nearer has a logit above 0, of up to 2^-22
// times the squared distance (2^-51 in double), which overflows in the end. The sign of that logit still
// tells which is nearer.
template <class L> FQVAE_INLINE typename L::M is_nearer(typename L::F code, typename L::F than,
                                                        typename L::F z) {
    const auto offset = code - than, half = L::set(static_cast<typename L::Real>(0.5));
    return L::less(offset * (offset * half - (z - than)), L::set(0));
}

// Whether the code that nearest_row has found is so far, 2^10 (2^24 in double) or at low temperatures less,
// that such a logit, divided by the temperature, may exceed 6.
template <class L>
FQVAE_INLINE typename L::M is_to_settle(const NearestCode<L> &nearest, typename L::Real inverse_temperature) {
    using Real = typename L::Real;
    constexpr Real least = 16, limit = static_cast<Real>(sizeof(Real) == 8 ? 0x1p52 : 0x1p24);
    const auto slope = L::set(inverse_temperature < least ? least : inverse_temperature);
    return L::less(L::set(limit), nearest.distance * nearest.distance * slope);
}

// The nearest of `code` and the codes of a range. z: as above.
template <class L>
FQVAE_INLINE typename L::F settled_nearest(CodeRange range, const typename L::Real *codes, typename L::F z,
                                           typename L::F code) {
    for (int first = range.begin; first < range.end; first += range.step)
        for_codes<1>(range.template count<L>(first), [&](int k) FQVAE_LAMBDA {
            const auto other = L::set(codes[first + k]);
            code = L::select(is_nearer<L>(other, code, z), other, code);
        });
    return code;
}

} // namespace fqvae
