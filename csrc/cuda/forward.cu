// The forward pass: a row to a thread, or to several that share its codes.
#include "scorers.h"

namespace fqvae {
namespace {

template <class Sums> __device__ __forceinline__ Sums from_lane(const Sums &mine, int distance) {
    Sums other = mine;
    other.lowest = __shfl_xor_sync(kWholeWarp, mine.lowest, distance);
    other.total = __shfl_xor_sync(kWholeWarp, mine.total, distance);
    other.weighted = __shfl_xor_sync(kWholeWarp, mine.weighted, distance);
    other.partition = __shfl_xor_sync(kWholeWarp, mine.partition, distance);
    other.weighted_logit = __shfl_xor_sync(kWholeWarp, mine.weighted_logit, distance);
    other.index = __shfl_xor_sync(kWholeWarp, mine.index, distance);
    return other;
}

// The threads that share a row add up what each has found. All of them end with the same bits: every step is
// a sum of two rounded products, in which the order does not matter.
template <class L, bool WithPosterior, class Scorer>
__device__ __forceinline__ void merge(ForwardSums<L, WithPosterior, Scorer> &mine, int lanes,
                                      typename L::Real inverse_temperature) {
    for (int distance = 1; distance < lanes; distance *= 2) {
        auto other = from_lane(mine, distance);
        const auto lowest = L::min(mine.lowest, other.lowest);
        if constexpr (!Scorer::kBounded) {
            const auto here = L::exp2((lowest - mine.lowest) * inverse_temperature);
            const auto there = L::exp2((lowest - other.lowest) * inverse_temperature);
            mine.total = rounded_product(mine.total, here);
            mine.weighted = rounded_product(mine.weighted, here);
            other.total = rounded_product(other.total, there);
            other.weighted = rounded_product(other.weighted, there);
        }
        if (other.lowest < mine.lowest || (other.lowest == mine.lowest && other.index < mine.index))
            mine.index = other.index;
        mine.lowest = lowest;
        mine.total += other.total;
        mine.weighted += other.weighted;
        mine.partition += other.partition;
        mine.weighted_logit += other.weighted_logit;
    }
}

template <class Real>
__device__ __forceinline__ void store_row(const ForwardArguments &args, const Block<Real> &block,
                                          const RowOfThread<Real> &row,
                                          const Reference<DeviceLanes<Real>> &reference, Real offset_scale,
                                          const RowSums<DeviceLanes<Real>> &sums) {
    const Call &call = args.call;
    const Real nan = static_cast<Real>(NAN);
    const Real soft = fma(sums.mean_offset, 1 / offset_scale, reference.point);
    const Real quantized = call.hard ? block.given(sums.index) : soft;
    store_value(args.quantized, call.dtype, row.row, reference.usable ? quantized : nan);
    args.indices[row.row] = sums.index;
    const Real kl_bits = sums.mean_logit - sums.log2_partition;
    const Real kl = (kl_bits + block.constants.log2_codes) * static_cast<Real>(kLn2);
    static_cast<Real *>(args.kl)[row.row] = reference.usable ? fmax(kl, static_cast<Real>(0)) : nan;
    if (args.sums) {
        Real *kept = static_cast<Real *>(args.sums) + row.row;
        kept[0] = sums.mean_offset;
        kept[call.rows] = sums.log2_total;
        kept[2 * call.rows] = sums.shift;
        kept[3 * call.rows] = sums.log2_partition;
        kept[4 * call.rows] = sums.mean_logit;
    }
}

template <class Real, class Scorer, class LoadTile>
__device__ __forceinline__ void forward_row(const ForwardArguments &args, Block<Real> &block,
                                            const RowOfThread<Real> &row, Scorer scorer,
                                            const Reference<DeviceLanes<Real>> &reference,
                                            Tile<DeviceLanes<Real>> &tile, LoadTile load_tile) {
    using L = DeviceLanes<Real>;
    const Call &call = args.call;
    const PhiloxRow<L> philox = block.philox_row(row.row);
    ForwardSums<L, true, Scorer> partial;
    block.template each_stage<Scorer::kInside>(row.lane, [&](int stage, CodeRange range) {
        partial.add(range, block.constants, scorer, philox, block.code_keys(), block.keys(), tile,
                    [&](int first, int) { load_tile(stage + first); });
    });
    merge(partial, call.lanes, block.constants.inverse_temperature);
    const RowSums<L> sums = partial.finish(block.constants);
    if (row.there && row.lane == 0)
        store_row(args, block, row, reference, static_cast<Real>(Scorer::kOffsetScale), sums);
    if constexpr (Scorer::kInside) // rows whose weights are wanted take the other one
        return;
    if (!args.weights)
        return;
    block.template each_stage<Scorer::kInside>(row.lane, [&](int stage, CodeRange range) {
        weights_row<L>(
            range, block.constants, scorer, sums, block.resident() && range.one_tile(), philox,
            block.code_keys(), block.keys(), tile, [&](int first, int) { load_tile(stage + first); },
            [&](int first, int) {
                Real weights[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int k = stage + first + j;
                    weights[j] = !reference.usable                   ? static_cast<Real>(NAN)
                                 : !call.hard                        ? tile.noise[j]
                                 : k == static_cast<int>(sums.index) ? 1
                                                                     : 0;
                }
                if (row.there)
                    store_four(args.weights, call, row.row, stage + first, weights);
            });
    });
}

template <class Real> __device__ __forceinline__ void forward_scalars(const ForwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, memory);
    block.survey(true);
    Tile<DeviceLanes<Real>> tile;
    if (block.resident()) {
        block.stage(0);
        __syncthreads();
    }
    block.each_row([&](const RowOfThread<Real> &row) {
        with_scalar_scorer(block, args.call, row, !args.weights, [&](auto scorer, const auto &reference) {
            forward_row(args, block, row, scorer, reference, tile, [](int) {});
        });
    });
}

template <class Real> __device__ __forceinline__ void forward_logits(const ForwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, memory);
    Tile<DeviceLanes<Real>> tile;
    if (block.resident()) {
        block.stage(0);
        __syncthreads();
    }
    block.each_row([&](const RowOfThread<Real> &row) {
        with_logit_scorer(block, args.call, row, tile, [&](auto scorer, const auto &reference) {
            forward_row(args, block, row, scorer, reference, tile,
                        [&](int k) { load_logits(args.call, row.row, k, reference.usable, tile.given); });
        });
    });
}

} // namespace

extern "C" {

__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<float>)
    forward_z_float(const __grid_constant__ ForwardArguments args) {
    forward_scalars<float>(args);
}
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<double>)
    forward_z_double(const __grid_constant__ ForwardArguments args) {
    forward_scalars<double>(args);
}
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<float>)
    forward_logits_float(const __grid_constant__ ForwardArguments args) {
    forward_logits<float>(args);
}
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<double>)
    forward_logits_double(const __grid_constant__ ForwardArguments args) {
    forward_logits<double>(args);
}

} // extern "C"

} // namespace fqvae
