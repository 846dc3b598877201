// The forward pass: a row to a thread, or to several that share its codes.
#include "outputs.h"
#include "posterior.h"
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

template <class L>
__device__ __forceinline__ SlopeSums<L> from_lane(const SlopeSums<L> &mine, int distance) {
    SlopeSums<L> other = mine;
    other.centre = __shfl_xor_sync(kWholeWarp, mine.centre, distance);
    other.first = __shfl_xor_sync(kWholeWarp, mine.first, distance);
    other.second = __shfl_xor_sync(kWholeWarp, mine.second, distance);
    other.offsets = __shfl_xor_sync(kWholeWarp, mine.offsets, distance);
    other.products = __shfl_xor_sync(kWholeWarp, mine.products, distance);
    return other;
}

// The threads that share a row add up what each has found. All of them end with the same bits: every step is
// a sum of two rounded products, in which the order does not matter. (The slopes' bits may differ; a row's
// first thread stores them.)
template <class L, bool WithPosterior, class Scorer, bool WithSlopes>
__device__ __forceinline__ void merge(ForwardSums<L, WithPosterior, Scorer, WithSlopes> &mine, int lanes,
                                      typename L::Real inverse_temperature) {
    for (int distance = 1; distance < lanes; distance *= 2) {
        auto other = from_lane(mine, distance);
        const auto lowest = L::min(mine.lowest, other.lowest);
        typename L::Real here = 1, there = 1;
        if constexpr (!Scorer::kBounded) {
            here = L::exp2((lowest - mine.lowest) * inverse_temperature);
            there = L::exp2((lowest - other.lowest) * inverse_temperature);
            mine.total = rounded_product(mine.total, here);
            mine.weighted = rounded_product(mine.weighted, here);
            other.total = rounded_product(other.total, there);
            other.weighted = rounded_product(other.weighted, there);
        }
        const bool theirs =
            other.lowest < mine.lowest || (other.lowest == mine.lowest && other.index < mine.index);
        if constexpr (WithSlopes) {
            auto slopes = from_lane(mine.slopes, distance);
            const auto centre = theirs ? slopes.centre : mine.slopes.centre;
            mine.slopes.move(here, centre, mine.total, inverse_temperature);
            slopes.move(there, centre, other.total, inverse_temperature);
            mine.slopes.add(slopes);
        }
        mine.index = theirs ? other.index : mine.index;
        mine.lowest = lowest;
        mine.total += other.total;
        mine.weighted += other.weighted;
        mine.partition += other.partition;
        mine.weighted_logit += other.weighted_logit;
    }
}

// What the backward pass is given of a row.
enum class Keeps {
    kStats,
    kStatsByTable, // rows that are their own reference find their posterior in the table
    kSlopes        // nothing but z wants a gradient
};

template <class Real>
__device__ __forceinline__ void store_slopes(const ForwardArguments &args, int64_t row, bool usable,
                                             const Slopes<DeviceLanes<Real>> &slopes) {
    Real *kept = static_cast<Real *>(args.out.stats) + row;
    kept[0] = value_or_nan<DeviceLanes<Real>>(usable, slopes.quantized);
    kept[args.call.rows] = slopes.kl;
}

// WithKl: else nobody wants it, and the stats of the posterior are 0.
template <Keeps keeps, bool WithKl, class Real, bool Resident, class Scorer, class LoadTile>
__device__ __forceinline__ void forward_row(const ForwardArguments &args, Block<Real, Resident> &block,
                                            const RowOfThread<Real> &row, Scorer scorer,
                                            const Reference<DeviceLanes<Real>> &reference,
                                            Tile<DeviceLanes<Real>> &tile, LoadTile load_tile) {
    using L = DeviceLanes<Real>;
    const Call &call = args.call;
    const PhiloxRow<L> philox = block.philox_row(row.row);
    constexpr bool tabulated = keeps == Keeps::kStatsByTable && Scorer::kInside;
    constexpr bool with_slopes = keeps == Keeps::kSlopes;
    ForwardSums<L, WithKl && !tabulated, Scorer, with_slopes> partial;
    const auto add = [&](int stage, auto range) {
        partial.add(range, block.context(scorer, philox, tile),
                    [&](int first, int) { load_tile(stage + first); });
    };
    if constexpr (tabulated) { // for many rows, so that a thread has one by itself
        block.constants.numbers = 0;
        add(0, PairsOfTiles<L>{call.codes});
    } else {
        block.template each_stage<Scorer::kInside>(row.lane, add);
        merge(partial, block.lanes(), block.constants.inverse_temperature);
    }
    RowStats<L> stats = partial.finish(block.constants);
    if constexpr (tabulated) {
        const auto *nodes = static_cast<const TableNode *>(args.table) + block.codebook() * kMostTableNodes;
        const TabulatedPosterior<Real> posterior(block, nodes, reference.x);
        stats.log2_partition = posterior.log2_partition;
        stats.mean_logit = posterior.kl_bits + posterior.log2_partition;
    }
    if (row.there && row.lane == 0) {
        store_row<Scorer>(args, block, row.row, reference, stats, stats.mean_logit - stats.log2_partition,
                          call.hard);
        if constexpr (!with_slopes)
            if (args.out.stats)
                store_stats(stats, true, true, [&](Stat stat, Real x) {
                    static_cast<Real *>(args.out.stats)[stat * call.rows + row.row] = x;
                });
        if constexpr (with_slopes)
            store_slopes<Real>(args, row.row, reference.usable,
                               partial.slopes.finish(partial.total, partial.partition, stats.mean_logit,
                                                     block.constants.inverse_temperature,
                                                     static_cast<Real>(Scorer::kOffsetScale)));
    }
    if constexpr (Scorer::kInside || with_slopes) // rows whose weights are wanted take other ways
        return;
    if (!args.out.weights)
        return;
    block.template each_stage<Scorer::kInside>(row.lane, [&](int stage, CodeRange range) {
        weights_row<L>(
            range, block.context(scorer, philox, tile), stats, block.resident() && range.one_tile(),
            [&](int first, int) { load_tile(stage + first); },
            [&](int first, int) {
                Real weights[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int k = stage + first + j;
                    const Real one_hot = k == static_cast<int>(stats.index) ? 1 : 0;
                    weights[j] = value_or_nan<L>(reference.usable, call.hard ? one_hot : tile.noise[j]);
                }
                if (row.there)
                    block.store_four(args.out.weights, row.row, stage + first, weights);
            });
    });
}

// run(WithKl), for all threads alike. The kernels of a table serve calls that want the KL, those of the
// slopes take the sums of the posterior anyway, and in double a second program would cost registers.
template <class Real, Keeps keeps, class Run>
__device__ __forceinline__ void with_forward_program(const ForwardArguments &args, Run run) {
    if constexpr (keeps == Keeps::kStats && sizeof(Real) == 4) {
        if (!args.out.kl) {
            run(std::false_type{});
            return;
        }
    }
    run(std::true_type{});
}

template <class Real, Keeps keeps>
__device__ __forceinline__ void forward_scalars(const ForwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    constexpr bool by_table = keeps == Keeps::kStatsByTable;
    Block<Real, by_table> block(args.call, args.launch, memory);
    block.survey(true);
    Tile<DeviceLanes<Real>> tile;
    if (block.resident()) {
        block.stage(0, by_table ? 8 : 4);
        __syncthreads();
    }
    const bool may_be_inside = !args.out.weights && (!by_table || block.table.nodes > 0);
    block.each_row([&](const RowOfThread<Real> &row) {
        with_scalar_scorer(block, args.call, row, may_be_inside, [&](auto scorer, const auto &reference) {
            with_forward_program<Real, keeps>(args, [&](auto kl) {
                forward_row<keeps, kl>(args, block, row, scorer, reference, tile, [](int) {});
            });
        });
    });
}

template <class Real> __device__ __forceinline__ void forward_logits(const ForwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, args.launch, memory);
    block.survey_for_logits();
    Tile<DeviceLanes<Real>> tile;
    if (block.resident()) {
        block.stage(0);
        __syncthreads();
    }
    block.each_row([&](const RowOfThread<Real> &row) {
        with_logit_scorer(block, args.call, row, tile, [&](auto scorer, const auto &reference) {
            with_forward_program<Real, Keeps::kStats>(args, [&](auto kl) {
                forward_row<Keeps::kStats, kl>(args, block, row, scorer, reference, tile, [&](int k) {
                    load_logits(block, args.call, row.row, k, reference.usable, tile.given);
                });
            });
        });
    });
}

} // namespace

#define FQVAE_FORWARD(name, Real, ...)                                                                       \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocksAtOnce<Real>)                              \
        name(const __grid_constant__ ForwardArguments args) {                                                \
        __VA_ARGS__(args);                                                                                   \
    }

FQVAE_FORWARD(forward_z_float, float, forward_scalars<float, Keeps::kStats>)
FQVAE_FORWARD(forward_z_double, double, forward_scalars<double, Keeps::kStats>)
FQVAE_FORWARD(forward_z_table_float, float, forward_scalars<float, Keeps::kStatsByTable>)
FQVAE_FORWARD(forward_z_slopes_float, float, forward_scalars<float, Keeps::kSlopes>)
FQVAE_FORWARD(forward_z_slopes_double, double, forward_scalars<double, Keeps::kSlopes>)
FQVAE_FORWARD(forward_logits_float, float, forward_logits<float>)
FQVAE_FORWARD(forward_logits_double, double, forward_logits<double>)

} // namespace fqvae
