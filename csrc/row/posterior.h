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
// The derivative of log2(sum of 2^l) is 2 E d.
#pragma once

#include <cmath>

#include "score.h"

namespace fqvae {

// A table serves codebooks that the bounded scorer serves and whose gaps are no wider than this, in the
// codebook's own units. It reaches this far beyond the codebook's ends, in scaled units.
constexpr double kWidestTabulatedGap = 1.5, kTableMargin = 2.5;
constexpr double kPosteriorStep = 0x1p-5; // between its nodes

// Where a table begins, and how many nodes it has. lowest, highest: the codebook's ends, centred and scaled.
template <class Real> struct TableExtent {
    Real first;
    int nodes;

    TableExtent() = default;
    FQVAE_INLINE TableExtent(Real lowest, Real highest) {
        const Real step = static_cast<Real>(kPosteriorStep), margin = static_cast<Real>(kTableMargin);
        first = floor((lowest - margin) / step) * step;
        nodes = static_cast<int>((highest + margin - first) / step) + 2;
    }
};

// Where a row stands between the nodes of a table.
template <class L> struct TablePlace {
    typename L::M inside; // false: beyond the table, and the other two are 0
    typename L::F at;     // in [0, 1] between the nodes
    typename L::U node;   // the node below

    TablePlace() = default;
    // x: centred and scaled z. The nodes lie at multiples of a power of two, so that distances to them are
    // exact.
    FQVAE_INLINE TablePlace(typename L::F x, typename L::Real table_first, int nodes) {
        using F = typename L::F;
        using Real = typename L::Real;
        const F steps = L::set(static_cast<Real>(1 / kPosteriorStep)),
                step = L::set(static_cast<Real>(kPosteriorStep));
        const F zero = L::set(0), first = L::set(table_first), last = L::set(static_cast<Real>(nodes - 1));
        const F position = (x - first) * steps;
        const typename L::M above = L::less(zero, position), below = L::less(position, last);
        inside = above & below;
        node = L::truncate(L::select(inside, position, zero));
        at = L::select(inside, (x - L::fma(L::to_real(node), step, first)) * steps, zero);
    }
};

// The basis of cubic Hermite interpolation: the weights of value and slope (times the step) at the node below
// and at the node above.
template <class L> struct Hermite {
    typename L::F of[4];

    FQVAE_INLINE explicit Hermite(typename L::F t) {
        const auto one = L::set(1), two = L::set(2), s = one - t;
        of[0] = (one + two * t) * s * s;
        of[1] = t * s * s;
        of[2] = t * t * (L::set(3) - two * t);
        of[3] = t * t * (t - one);
    }
    FQVAE_INLINE typename L::F operator()(typename L::F value_below, typename L::F slope_below,
                                          typename L::F value_above, typename L::F slope_above) const {
        auto sum = value_below * of[0];
        sum = L::fma(slope_below, of[1], sum);
        sum = L::fma(value_above, of[2], sum);
        return L::fma(slope_above, of[3], sum);
    }
};

// The posterior at one point. Its mean offset is half the derivative of log2_partition.
template <class L> struct Posterior {
    typename L::F scale; // 1 / sum of 2^l
    typename L::F log2_partition, mean_logit, mean_offset, covariance;
    typename L::F value, slope, curvature; // f, f', f''
};

// The codes first, first + step ... below count, and how those who hold the others add theirs: a lane that
// holds all codes passes its sums on as they are.
struct AllCodes {
    static constexpr int first = 0, step = 1;
    template <class F> FQVAE_INLINE F sum(F mine) const { return mine; }
};

// codes: centred and scaled. x: within reach of them, so that sum of 2^l is no denormal number.
template <class L, class Share = AllCodes>
FQVAE_INLINE Posterior<L> posterior_at(const typename L::Real *codes, int count, typename L::F x,
                                       Share share = {}) {
    using F = typename L::F;
    using Real = typename L::Real;
    const F zero = L::set(0), ln2 = L::set(static_cast<Real>(kLn2)), one = L::set(1);
    const int own = share.first < count ? (count - share.first - 1) / share.step + 1 : 0;
    F partition = zero, logits = zero, offsets = zero;
    for_codes<4>(own, [&](int i) FQVAE_LAMBDA {
        const F d = L::set(codes[share.first + i * share.step]) - x, logit = zero - d * d, p = L::exp2(logit);
        partition = partition + p;
        logits = L::fma(p, logit, logits);
        offsets = L::fma(p, d, offsets);
    });
    partition = share.sum(partition);
    logits = share.sum(logits);
    offsets = share.sum(offsets);
    Posterior<L> q;
    q.scale = one / partition;
    q.log2_partition = L::log2(partition, zero);
    q.mean_logit = logits * q.scale;
    q.mean_offset = offsets * q.scale;
    F covariance = zero, variance = zero, third = zero;
    for_codes<4>(own, [&](int i) FQVAE_LAMBDA {
        const F d = L::set(codes[share.first + i * share.step]) - x, logit = zero - d * d, p = L::exp2(logit);
        const F from_mean = d - q.mean_offset, squared = p * from_mean * from_mean;
        covariance = L::fma(p * from_mean, logit - q.mean_logit, covariance);
        variance = variance + squared;
        third = L::fma(squared, logit - q.mean_logit, third);
    });
    q.covariance = share.sum(covariance) * q.scale;
    q.value = q.mean_logit - q.log2_partition;
    q.slope = L::set(2) * ln2 * q.covariance;
    q.curvature = L::set(4) * ln2 * L::fma(ln2, share.sum(third), share.sum(variance)) * q.scale;
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
