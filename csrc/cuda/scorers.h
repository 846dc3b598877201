// The scorer of a row and its reference point, on the device: what cpu/groups.h does there.
#pragma once

#include "block.h"

namespace fqvae {

// The threads that share a row, each with the nearest of its own codes, agree on the nearest of all.
template <class L> __device__ __forceinline__ void merge_nearest(NearestCode<L> &mine, int lanes) {
    for (int distance = 1; distance < lanes; distance *= 2) {
        auto other = mine;
        other.code = __shfl_xor_sync(kWholeWarp, mine.code, distance);
        other.distance = __shfl_xor_sync(kWholeWarp, mine.distance, distance);
        other.index = __shfl_xor_sync(kWholeWarp, mine.index, distance);
        if (other.distance < mine.distance || (other.distance == mine.distance && other.index < mine.index))
            mine = other;
    }
}

template <class Real, bool Resident>
__device__ __forceinline__ NearestCode<DeviceLanes<Real>> nearest_code(Block<Real, Resident> &block,
                                                                       const Call &call, int lane, Real z) {
    using L = DeviceLanes<Real>;
    NearestCode<L> nearest(block.given(0));
    const Real inside = clamp<L>(z, block.lowest, block.highest);
    block.each_stage(lane, [&](int, CodeRange range) {
        nearest_row<L>(range, block.codes(), block.constants.numbers, inside, nearest);
    });
    merge_nearest(nearest, call.lanes);
    return nearest;
}

// Calls run(scorer, reference, load_tile) for rows of scalars. load_tile(first, tile) does nothing here.
template <class Real, bool Resident, class Run>
__device__ __forceinline__ void with_scalar_scorer(Block<Real, Resident> &block, const Call &call,
                                                   const RowOfThread<Real> &row, bool may_be_inside,
                                                   Run run) {
    using L = DeviceLanes<Real>;
    const Finite<L> finite(load_value<Real>(call.input, call.dtype, row.row));
    const bool usable = finite.usable && row.there;
    if (block.bounds.bounded) {
        const BoundedPlace<L> place(finite.z, block.bounds, block.lowest, block.highest);
        const Reference<L> reference{place.point, usable, place.x};
        // A warp takes the shorter program if all its rows can; where barriers follow, the block must agree.
        if (may_be_inside && block.resident() && !__any_sync(kWholeWarp, place.outside))
            run(BoundedScorer<L, true>{block.codes(), place.reference, 0}, reference);
        else
            run(BoundedScorer<L, false>{block.codes(), place.reference, place.excess * 2}, reference);
    } else {
        const auto nearest = nearest_code(block, call, row.lane, finite.z);
        const Real far = static_cast<Real>(kFarExactExcess),
                   excess = clamp<L>(finite.z - nearest.code, -far, far);
        run(ExactScorer<L>{block.codes(), nearest.code, excess * 2}, Reference<L>{nearest.code, usable, 0});
    }
}

// Logits k ... k + 3 of a row; of rows that are not usable, zeros. Codes beyond the last are masked out.
template <class Real>
__device__ __forceinline__ void load_logits(const Call &call, int64_t row, int k, bool usable, Real *out) {
    const Real masked = -static_cast<Real>(INFINITY);
    load_four(call.input, call, row, k, masked, out);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        out[j] = usable || k + j >= call.codes ? out[j] : 0;
}

// The same for rows of given logits.
template <class Real, class Run>
__device__ __forceinline__ void with_logit_scorer(Block<Real> &block, const Call &call,
                                                  const RowOfThread<Real> &row, Tile<DeviceLanes<Real>> &tile,
                                                  Run run) {
    using L = DeviceLanes<Real>;
    const Real infinity = static_cast<Real>(INFINITY);
    Real largest = -infinity;
    int index = call.codes;
    bool usable = true;
    for (int k = 4 * row.lane; k < call.codes; k += 4 * call.lanes) {
        Real four[4];
        load_four(call.input, call, row.row, k, -infinity, four);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            usable = usable && four[j] < infinity; // neither NaN nor +inf
            if (four[j] > largest) {
                largest = four[j];
                index = k + j;
            }
        }
    }
    for (int distance = 1; distance < call.lanes; distance *= 2) {
        const Real other = __shfl_xor_sync(kWholeWarp, largest, distance);
        const int other_index = __shfl_xor_sync(kWholeWarp, index, distance);
        usable = __shfl_xor_sync(kWholeWarp, static_cast<int>(usable), distance) && usable;
        if (other > largest || (other == largest && other_index < index)) {
            largest = other;
            index = other_index;
        }
    }
    usable = usable && largest > -infinity;
    const Real code = block.given(usable ? index : 0);
    run(LogitScorer<L>{block.codes(), usable ? largest : 0, code, tile.given},
        Reference<L>{code, usable && row.there, 0});
}

} // namespace fqvae
