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
// the first of them. Seen from that one, a code that is really nearer has a logit above 0: of 2^-22 times the
// square of the distance, which overflows in the end. So it is settled by the logits themselves,
// d (2 e - d), which tell these codes apart.
template <class L> struct SettledCode {
    using F = typename L::F;
    using Real = typename L::Real;
    // Keeps products of lengths finite and normal.
    static constexpr double kScale = sizeof(Real) == 8 ? 1 : 0x1p-40;
    F from, twice_excess; // of the code that nearest_row has found, scaled
    F logit, code;        // the largest so far, scaled twice, and its code
    typename L::M far;    // whether there is anything to settle

    // From this distance on a logit above 0, divided by the temperature, may exceed 6.
    FQVAE_INLINE static Real limit(Real inverse_temperature) {
        const Real limit =
            static_cast<Real>(sizeof(Real) == 8 ? 0x1p28 : 0x1p12) / std::sqrt(inverse_temperature);
        const Real most = static_cast<Real>(sizeof(Real) == 8 ? 0x1p24 : 0x1p10);
        return limit < most ? limit : most;
    }
    // excess: of a z within the codebook's range, by exact_excess.
    FQVAE_INLINE SettledCode(const NearestCode<L> &nearest, F excess, Real inverse_temperature)
        : from(nearest.code), twice_excess(scaled(excess) * L::set(2)), logit(L::set(0)), code(nearest.code),
          far(L::less(L::set(limit(inverse_temperature)), nearest.distance)) {}

    FQVAE_INLINE void add(CodeRange range, const Real *codes) {
        auto found = *this;
        const F start = scaled(from);
        for (int first = range.begin; first < range.end; first += range.step)
            for_codes<4>(range.template count<L>(first), [&](int k) FQVAE_LAMBDA {
                const F other = L::set(codes[first + k]), d = scaled(other) - start;
                const F there = d * (found.twice_excess - d);
                const auto nearer = L::less(found.logit, there);
                found.code = L::select(nearer, other, found.code);
                found.logit = L::select(nearer, there, found.logit);
            });
        *this = found;
    }
    FQVAE_INLINE F settled() const { return L::select(far, code, from); }
    // What an ExactScorer's logits do not exceed: seen from the settled code rounding alone makes one
    // positive. That of other rows is small, and stays.
    FQVAE_INLINE F highest_logit() const {
        return L::select(far, L::set(0), L::set(static_cast<Real>(-kLowestLogit)));
    }

  private:
    FQVAE_INLINE static F scaled(F length) { return length * L::set(static_cast<Real>(kScale)); }
};

} // namespace fqvae
