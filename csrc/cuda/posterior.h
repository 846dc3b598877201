// The tabulated posterior of a codebook (row/posterior.h) in device memory: how a node is stored and read.
// A row's KL, and what the backward pass wants to know of its posterior, are two cubic interpolations.
#pragma once

#include "block.h"

namespace fqvae {

// Value and slope, times the step, of the KL in bits (less log2 of the number of codes) and of
// log2_partition.
struct alignas(16) TableNode {
    float kl, kl_slope, partition, partition_slope;
};

// Nodes that each codebook has memory for: those of the widest one that the bounded scorer serves, and one
// more for rounding.
constexpr int kMostTableNodes =
    static_cast<int>((kWidestRange * kLengthScale + 2 * kTableMargin) / kPosteriorStep) + 4;

// Of one row, whose x lies within the table.
template <class Real> struct TabulatedPosterior {
    Real kl_bits, log2_partition;

    template <bool Resident>
    __device__ __forceinline__ TabulatedPosterior(const Block<Real, Resident> &block, const TableNode *nodes,
                                                  Real x) {
        using L = DeviceLanes<Real>;
        const TablePlace<L> place(x, block.table.first, block.table.nodes);
        const Hermite<L> interpolate(place.at);
        const TableNode below = nodes[place.node], above = nodes[place.node + 1];
        kl_bits = interpolate(below.kl, below.kl_slope, above.kl, above.kl_slope);
        log2_partition =
            interpolate(below.partition, below.partition_slope, above.partition, above.partition_slope);
    }
};

} // namespace fqvae
