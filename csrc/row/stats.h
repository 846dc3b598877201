// What the forward pass finds out about a row and keeps for the backward pass: its stats.
#pragma once

#include "score.h"

namespace fqvae {

template <class L> struct RowStats {
    typename L::F mean_offset; // sum of w d: the soft quantized value, seen from the reference
    // log2 w = shift - cost / temperature - log2_total of bounded scorers; of others, where shift is the
    // lowest cost, (shift - cost) / temperature - log2_total.
    typename L::F shift, log2_total;
    typename L::F log2_partition; // log2 q = logit - log2_partition
    typename L::F mean_logit;     // sum of q logit
    typename L::U index;          // the code of the lowest cost; a tensor of its own keeps it
};

// The stats in memory are (kStats, rows): number s of row n is at s * rows + n.
enum Stat : int { kMeanOffset, kLog2Total, kShift, kLog2Partition, kMeanLogit, kStats };

// Calls store(stat, x) for each of the stats but the shift and those of the posterior, which the backward
// pass may do without: memory that nobody writes to is never mapped.
template <class L, class Store>
FQVAE_INLINE void store_stats(const RowStats<L> &stats, bool with_shift, bool with_posterior, Store store) {
    store(kMeanOffset, stats.mean_offset);
    store(kLog2Total, stats.log2_total);
    if (with_shift)
        store(kShift, stats.shift);
    if (with_posterior) {
        store(kLog2Partition, stats.log2_partition);
        store(kMeanLogit, stats.mean_logit);
    }
}

// The same back, from load(stat, otherwise): `otherwise` stands in lanes without a row, whose weights are
// then 0 at any temperature. with_shift: else the caller knows it.
template <class L, class Load>
FQVAE_INLINE RowStats<L> load_stats(bool with_shift, bool with_posterior, Load load) {
    using Real = typename L::Real;
    RowStats<L> stats{};
    stats.mean_offset = load(kMeanOffset, static_cast<Real>(0));
    stats.log2_total = load(kLog2Total, static_cast<Real>(-kLowestLogit));
    if (with_shift)
        stats.shift = load(kShift, static_cast<Real>(-0x1p20)); // below any cost
    if (with_posterior) {
        stats.log2_partition = load(kLog2Partition, static_cast<Real>(0));
        stats.mean_logit = load(kMeanLogit, static_cast<Real>(0));
    }
    return stats;
}

} // namespace fqvae
