// The scorer of a row and its reference, on a GPU; cpu/groups.h does the same there.
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
__device__ __forceinline__ NearestCode<DeviceLanes<Real>> nearest_code(Block<Real, Resident> &block, int lane,
                                                                       Real z) {
    using L = DeviceLanes<Real>;
    NearestCode<L> nearest(block.given(0));
    const Real inside = clamp<L>(z, block.lowest, block.highest);
    block.each_stage(lane, [&](int, CodeRange range) {
        nearest_row<L>(range, block.codes(), block.constants.numbers, inside, nearest);
    });
    merge_nearest(nearest, block.lanes());
    return nearest;
}

// The code of the largest logit; the threads that share a row agree on it. A CPU looks for it in two steps
// (nearest.h), of which the second one seldom runs; here it would cost registers always.
template <class Real, bool Resident>
__device__ __forceinline__ Real reference_code(Block<Real, Resident> &block, int lane, Real z) {
    using L = DeviceLanes<Real>;
    const Real inside = clamp<L>(z, block.lowest, block.highest);
    Real code = block.given(0);
    block.each_stage(
        lane, [&](int, CodeRange range) { code = settled_nearest<L>(range, block.codes(), inside, code); });
    for (int distance = 1; distance < block.lanes(); distance *= 2) {
        const Real other = __shfl_xor_sync(kWholeWarp, code, distance);
        code = is_nearer<L>(other, code, inside) ? other : code;
    }
    return __shfl_sync(kWholeWarp, code, 0, block.lanes()); // of two that are equally near, one
}

// Calls run(scorer, reference) for rows of scalars. WithInside: there is a shorter program for rows that are
// their own reference, which may_be_inside allows.
template <bool WithInside = true, class Real, bool Resident, class Run>
__device__ __forceinline__ void with_scalar_scorer(Block<Real, Resident> &block, const Call &call,
                                                   const RowOfThread<Real> &row, bool may_be_inside,
                                                   Run run) {
    using L = DeviceLanes<Real>;
    const Finite<L> finite(load_value<Real>(call.input, call.dtype, row.row));
    const bool usable = finite.usable && row.there && !block.spoilt;
    if (block.bounds.bounded) {
        const BoundedPlace<L> place(finite.z, block.bounds, block.lowest, block.highest);
        const Reference<L> reference{place.point, usable, place.x};
        // A warp takes the shorter program if all its rows can; where barriers follow, the block must agree.
        if constexpr (WithInside) {
            if (may_be_inside && block.resident() && !__any_sync(kWholeWarp, place.outside)) {
                run(BoundedScorer<L, true>{block.codes(), place.reference, 0}, reference);
                return;
            }
        }
        const BoundedScorer<L, false> far{block.codes(), place.reference, place.excess * 2};
        run(FarScorer<L>{far, block.codes_as_given(), place.point, place.outside}, reference);
    } else {
        const Real code = reference_code(block, row.lane, finite.z);
        run(ExactScorer<L>{block.codes(), code, exact_excess<L>(finite.z, code) * 2},
            Reference<L>{code, usable, 0});
    }
}

// Logits k ... k + 3 of a row; of rows that are not usable, zeros. Codes beyond the last are masked out.
template <class Real>
__device__ __forceinline__ void load_logits(const Block<Real> &block, const Call &call, int64_t row, int k,
                                            bool usable, Real *out) {
    const Real masked = -static_cast<Real>(INFINITY);
    block.load_four(call.input, row, k, masked, out);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        out[j] = usable || k + j >= call.codes ? out[j] : 0;
}

// The threads that share a row agree on the largest of all its logits.
template <class L> __device__ __forceinline__ void merge_largest(LargestLogit<L> &mine, int lanes) {
    for (int distance = 1; distance < lanes; distance *= 2) {
        const auto logit = __shfl_xor_sync(kWholeWarp, mine.logit, distance);
        const auto index = __shfl_xor_sync(kWholeWarp, mine.index, distance);
        mine.usable = __shfl_xor_sync(kWholeWarp, static_cast<int>(mine.usable), distance) && mine.usable;
        if (logit > mine.logit || (logit == mine.logit && index < mine.index)) {
            mine.logit = logit;
            mine.index = index;
        }
    }
}

// Calls run(scorer, reference) for rows of given logits.
template <class Real, class Run>
__device__ __forceinline__ void with_logit_scorer(Block<Real> &block, const Call &call,
                                                  const RowOfThread<Real> &row, Tile<DeviceLanes<Real>> &tile,
                                                  Run run) {
    using L = DeviceLanes<Real>;
    LargestLogit<L> largest;
    for (int k = 4 * row.lane; k < call.codes; k += 4 * block.lanes()) {
        Real four[4];
        block.load_four(call.input, row.row, k, -static_cast<Real>(INFINITY), four);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            largest.add(four[j], static_cast<uint32_t>(k + j));
    }
    merge_largest(largest, block.lanes());
    largest.finish();
    const Real code = block.given(largest.index);
    run(LogitScorer<L>{block.codes(), largest.logit, code, tile.given},
        Reference<L>{code, largest.usable && row.there && !block.spoilt, 0});
}

} // namespace fqvae
