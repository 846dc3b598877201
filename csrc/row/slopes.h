// The slopes of a row: how quantized and kl change with z, from sums that the forward pass can take along.
// Where nothing but z wants a gradient, they are all that the backward pass needs.
//
//     dquantized/dz = 2 Var_w(d) / temperature        dkl/dz = 2 Cov_q(l, d)
//
// The variance is taken about the offset of the lowest cost so far, which holds much of the weight: then
// nothing is lost where one code holds nearly all of it, at any temperature. Where a product may be 0 times a
// large number, the weight comes first.
#pragma once

#include "score.h"

namespace fqvae {

template <class L> struct Slopes {
    typename L::F quantized, kl;
};

template <class L> struct SlopeSums {
    using F = typename L::F;
    F centre;            // the offset of the lowest cost so far
    F first, second;     // sums of w (d - centre) and of w (d - centre)^2 / temperature
    F offsets, products; // sums of q d and of q logit d

    FQVAE_INLINE explicit SlopeSums(F at)
        : centre(at), first(L::set(0)), second(L::set(0)), offsets(L::set(0)), products(L::set(0)) {}

    // The weights so far, whose sum is now `total`, have been multiplied by factor.
    FQVAE_INLINE void move(F factor, F to, F total, F inverse_temperature) {
        const F step = to - centre, moved = step * total;
        first = first * factor;
        second = L::fma((moved - first - first) * inverse_temperature, step, second * factor);
        first = first - moved;
        centre = to;
    }
    FQVAE_INLINE void add(F w, F d, F inverse_temperature) {
        const F from = d - centre, weighted = w * from;
        first = first + weighted;
        second = L::fma(weighted * inverse_temperature, from, second);
    }
    FQVAE_INLINE void add_posterior(F q, F q_logit, F d) {
        offsets = L::fma(q, d, offsets);
        products = L::fma(q_logit, d, products);
    }
    // The centres must be the same.
    FQVAE_INLINE void add(const SlopeSums &other) {
        first = first + other.first;
        second = second + other.second;
        offsets = offsets + other.offsets;
        products = products + other.products;
    }

    FQVAE_INLINE F mean_offset(F total) const { return centre + first / total; }

    // scale: of the offsets (score.h).
    FQVAE_INLINE Slopes<L> finish(F total, F partition, F mean_logit, F inverse_temperature,
                                  typename L::Real scale) const {
        using Real = typename L::Real;
        const F mean = first / total;
        const F variance = L::max(second / total - mean * inverse_temperature * mean, L::set(0));
        const F covariance = (products - mean_logit * offsets) / partition;
        return {variance * L::set(2 / (scale * scale)),
                covariance * L::set(static_cast<Real>(2 * kLn2) / scale)};
    }
};

} // namespace fqvae
