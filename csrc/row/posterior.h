// The posterior q without noise, as a function of z alone.
//
// KL(q || uniform) depends on z and on nothing else that differs between rows. Where many rows share a
// codebook it pays to tabulate it once per call, with the derivatives that a cubic Hermite interpolation
// needs, and to spend no exponential on it row by row. Below x is z in the units of score.h, d[k] = m[k] - x,
// l[k] = -d[k]^2, E and Cov are taken under q, and c = ln 2:
//     f     = sum of q log2 q = E l - log2(sum of 2^l)          the KL in bits, less log2 K
//     f'    = 2 c Cov(l, d)
//     f''   = 4 c (c E[(l - E l)(d - E d)^2] + Var d)
//     g[k]  = df/dm[k] = -2 c q (l - E l) d
//     g'[k] = -2 c (2 c q (d - E d)(l - E l) d + q (2 d - 2 c Cov(l, d) - 2 E d) d - q (l - E l))
#pragma once

#include "score.h"

namespace fqvae {

template <class L> struct Posterior {
    typename L::F scale; // 1 / sum of 2^l
    typename L::F mean_logit, mean_offset, covariance;
    typename L::F value, slope, curvature; // f, f', f''
};

// codes: centred and scaled. x: within reach of them, so that sum of 2^l is no denormal number.
template <class L>
FQVAE_INLINE Posterior<L> posterior_at(const typename L::Real *codes, int count, typename L::F x) {
    using F = typename L::F;
    using Real = typename L::Real;
    const F zero = L::set(0), ln2 = L::set(static_cast<Real>(kLn2)), one = L::set(1);
    F partition = zero, logits = zero, offsets = zero;
    for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
        const F d = L::set(codes[k]) - x, logit = zero - d * d, p = L::exp2(logit);
        partition = partition + p;
        logits = L::fma(p, logit, logits);
        offsets = L::fma(p, d, offsets);
    });
    Posterior<L> q;
    q.scale = one / partition;
    q.mean_logit = logits * q.scale;
    q.mean_offset = offsets * q.scale;
    F covariance = zero, variance = zero, third = zero;
    for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
        const F d = L::set(codes[k]) - x, logit = zero - d * d, p = L::exp2(logit);
        const F from_mean = d - q.mean_offset, squared = p * from_mean * from_mean;
        covariance = L::fma(p * from_mean, logit - q.mean_logit, covariance);
        variance = variance + squared;
        third = L::fma(squared, logit - q.mean_logit, third);
    });
    q.covariance = covariance * q.scale;
    q.value = q.mean_logit - L::log2(partition, zero);
    q.slope = L::set(2) * ln2 * q.covariance;
    q.curvature = L::set(4) * ln2 * L::fma(ln2, third, variance) * q.scale;
    return q;
}

// Adds value_weight g[k] + slope_weight g'[k] to sums[k * width + lane].
template <class L>
FQVAE_INLINE void posterior_gradient(const typename L::Real *codes, int count, typename L::F x,
                                     typename L::F value_weight, typename L::F slope_weight,
                                     typename L::Real *sums) {
    using F = typename L::F;
    using Real = typename L::Real;
    const auto q = posterior_at<L>(codes, count, x);
    const F zero = L::set(0), two = L::set(2), ln2 = L::set(static_cast<Real>(kLn2));
    const F mean_logit_slope = two * L::fma(ln2, q.covariance, q.mean_offset);
    for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
        const F d = L::set(codes[k]) - x, logit = zero - d * d, p = L::exp2(logit) * q.scale;
        const F above = logit - q.mean_logit;
        const F slope =
            two * ln2 * (d - q.mean_offset) * above * d + (two * d - mean_logit_slope) * d - above;
        const F both = L::fma(slope_weight, slope, value_weight * above * d);
        L::store(sums + k * L::width, L::fma(p * (zero - two * ln2), both, L::load(sums + k * L::width)));
    });
}

} // namespace fqvae
