// Whether the bounded scorer (score.h) serves a codebook, and what it then needs to know of it. The codebook
// and the temperature alone decide.
#pragma once

#include "score.h"

namespace fqvae {

constexpr int kBuckets = 64; // that the range of a codebook is cut into, to find its widest gap

// The bucket of a code.
template <class Real> FQVAE_INLINE int bucket_of(Real code, Real lowest, Real bucket) {
    const int i = static_cast<int>((code - lowest) / bucket);
    return i < kBuckets - 1 ? i : kBuckets - 1;
}

// An upper bound on the distance between neighbouring codes: the longest run of empty buckets, found in the
// bits of a word, and the two buckets beside it.
template <class Real> FQVAE_INLINE Real largest_gap(uint64_t occupied, Real bucket) {
    int longest = 0;
    uint64_t empty = ~occupied;
    for (; empty != 0; empty &= empty << 1) // each step shortens every run by one
        ++longest;
    return static_cast<Real>(longest + 2) * bucket;
}

// -log2(-log2 u), the noise in base 2, lies between these.
constexpr double kLowestNoise = -4.6, kHighestNoise = 23.5;
constexpr double kWidestRange = 16, kWidestGap = 4; // that the bounded scorer serves

template <class Real> struct Bounds {
    bool bounded;
    Real reach; // how far beyond its ends z is its own reference, in scaled units
    Real shift, shift_below;
    Real centre;

    FQVAE_INLINE Real scaled(Real code) const {
        return static_cast<Real>((code - centre) * static_cast<Real>(kLengthScale));
    }
};

// The bounded scorer serves codebooks of finite codes whose range and gaps are moderate, at temperatures that
// are not small: then, with costs shifted by a constant, the largest weight of a row lies between 2^-100 and
// a power of 2 whose sum over all codes, times an offset, is still finite.
template <class Real>
FQVAE_INLINE Bounds<Real> bounds_of(Real lowest, Real highest, Real gap, Real log2_codes, Real temperature) {
    const Real range = highest - lowest, two = static_cast<Real>(2);
    const Real top = static_cast<Real>(126 - 6) - log2_codes; // 2^6 exceeds any scaled offset
    Bounds<Real> bounds{};
    // Offsets, and so their rounding, stay of the codebook's size.
    bounds.reach = range < two ? range : two;
    const Real far_gap = static_cast<Real>(kLog2E / 4) * gap * gap, far_end = bounds.reach * bounds.reach;
    const Real highest_cost = (far_gap > far_end ? far_gap : far_end) - static_cast<Real>(kLowestNoise);
    bounds.bounded = range > 0 && range <= static_cast<Real>(kWidestRange) &&
                     gap <= static_cast<Real>(kWidestGap) &&
                     (static_cast<Real>(kHighestNoise) + highest_cost) / temperature <= top + 100;
    bounds.shift = top - static_cast<Real>(kHighestNoise) / temperature;
    bounds.shift_below = static_cast<Real>(static_cast<int>(bounds.shift));
    bounds.centre = (lowest + highest) / two;
    return bounds;
}

} // namespace fqvae
