// The backward pass: as the forward pass, and the gradients that all rows share are left block by block.
#include "codebook_sums.h"
#include "scorers.h"

namespace fqvae {
namespace {

constexpr int kRowsBetweenMoves = 32; // of a thread: float sums move on before their rounding counts

// What the rows of a block add to the gradients that all rows share.
template <class Real> struct Shares {
    CodebookSums<Real> codebook;
    double *part;       // where the codebook's sums go: (codes,), or null
    double temperature; // of this thread

    __device__ __forceinline__ void move(int stage, int codes) {
        if (part)
            codebook.move_to(part + stage, codes);
    }
};

// Adds up a number of each thread in a fixed order.
__device__ __forceinline__ void sum_of_block(double x, double *out) {
    __shared__ double parts[kWarps];
    x = sum_of_lanes(x, 32);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0;
        for (int i = 0; i < kWarps; ++i)
            sum += parts[i];
        *out = sum;
    }
}

template <class Real>
__device__ __forceinline__ RowSums<DeviceLanes<Real>> load_sums(const BackwardArguments &args, int64_t row) {
    const int64_t rows = args.call.rows;
    const Real *kept = static_cast<const Real *>(args.sums) + row;
    return {kept[0], kept[2 * rows], kept[rows], kept[3 * rows], kept[4 * rows], 0};
}

// What flows into the row; nothing flows into one that is not usable.
template <class Real>
__device__ __forceinline__ RowUpstream<DeviceLanes<Real>>
load_upstream(const BackwardArguments &args, const RowOfThread<Real> &row, bool usable) {
    const Call &call = args.call;
    RowUpstream<DeviceLanes<Real>> up{0, 0, 0, 0, args.grad_weights != nullptr};
    if (!usable)
        return up;
    if (args.grad_quantized)
        up.quantized = load_value<Real>(args.grad_quantized, call.dtype, row.row);
    if (args.grad_kl)
        up.kl = static_cast<const Real *>(args.grad_kl)[row.row];
    if (args.grad_weights)
        up.reference =
            load_value<Real>(args.grad_weights, call.dtype, row.row * call.codes + args.indices[row.row]);
    up.direct = call.hard ? 0 : up.quantized;
    return up;
}

template <class Real, bool General, class Scorer, class LoadTile>
__device__ __forceinline__ void backward_row(const BackwardArguments &args, Block<Real> &block,
                                             Shares<Real> &shares, const RowOfThread<Real> &row,
                                             Scorer scorer, const Reference<DeviceLanes<Real>> &reference,
                                             Tile<DeviceLanes<Real>> &tile, LoadTile load_logits) {
    using L = DeviceLanes<Real>;
    const Call &call = args.call;
    const bool usable = reference.usable;
    const PhiloxRow<L> philox = block.philox_row(row.row);
    const RowSums<L> sums = load_sums<Real>(args, row.row);
    const auto up = load_upstream(args, row, usable);
    const auto load_tile = [&](int k) {
        load_logits(k);
        if (General && up.weights) {
            load_four(args.grad_weights, call, row.row, k, static_cast<Real>(0), tile.grad_weights);
#pragma unroll
            for (int j = 0; j < 4; ++j)
                tile.grad_weights[j] = usable ? tile.grad_weights[j] : 0;
        }
    };

    Real weights_mean = 0;
    if (General && up.weights) {
        block.template each_stage<Scorer::kInside>(row.lane, [&](int stage, CodeRange range) {
            weights_mean += weights_mean_row<L, true>(range, block.constants, scorer, sums, up, philox,
                                                      block.code_keys(), block.keys(), tile,
                                                      [&](int first, int) { load_tile(stage + first); });
        });
        weights_mean = sum_of_lanes(weights_mean, call.lanes);
    }

    const int64_t index = call.hard ? args.indices[row.row] : 0;
    RowGradient<L> gradient{0, 0};
    const auto gradients = [&](int stage, CodeRange range) {
        const bool weighed = General && up.weights && block.resident() && range.one_tile();
        const auto more = backward_row<L, General, true>(
            range, block.constants, scorer, sums, up, weights_mean, weighed, shares.codebook, philox,
            block.code_keys(), block.keys(), tile, [&](int first, int) { load_tile(stage + first); },
            [&](int first, int) {
                if (args.grad_input && row.there)
                    store_four(args.grad_input, call, row.row, stage + first, tile.given);
            });
        gradient.input += more.input;
        gradient.temperature += more.temperature;
        // Straight-through: the direct term goes to the chosen code.
        const int chosen = static_cast<int>(index) - stage;
        if (call.hard && chosen >= 0 && chosen < range.end && block_of(chosen) % call.lanes == row.lane)
            shares.codebook.add(chosen & ~3, chosen & 3, up.quantized);
    };
    // Sums of a part of the codebook move on before the next part takes its place.
    block.template each_stage<Scorer::kInside>(row.lane, gradients,
                                               [&](int stage, int codes) { shares.move(stage, codes); });
    gradient.input = sum_of_lanes(gradient.input, call.lanes);
    if (row.there) {
        if (!Scorer::kGivenLogits && args.grad_input && row.lane == 0)
            store_value(args.grad_input, call.dtype, row.row, gradient.input);
        shares.temperature += static_cast<double>(gradient.temperature);
    }
}

// Everything around the rows of a block: prepare() stages a resident codebook, each(shares, row) runs the
// backward pass of a row.
template <bool General, class Real, class Prepare, class EachRow>
__device__ __forceinline__ void backward_block(const BackwardArguments &args, Block<Real> &block, Real *sums,
                                               Prepare prepare, EachRow each) {
    const Call &call = args.call;
    const int64_t number = blockIdx.x * call.codebooks + block.latent();
    Shares<Real> shares{CodebookSums<Real>(sums, call.lanes),
                        args.grad_codebook ? args.grad_codebook + number * call.codes : nullptr, 0};
    shares.codebook.clear(call.staged);
    if (shares.part)
        for (int k = threadIdx.x; k < call.codes; k += kThreads)
            shares.part[k] = 0;
    prepare();
    __syncthreads();
    int rows = 0;
    block.each_row([&](const RowOfThread<Real> &row) {
        each(shares, row);
        if (block.resident() && ++rows % kRowsBetweenMoves == 0) {
            __syncthreads();
            shares.move(0, call.codes);
            __syncthreads();
        }
    });
    if (block.resident()) {
        __syncthreads();
        shares.move(0, call.codes);
    }
    if (General && args.grad_temperature)
        sum_of_block(shares.temperature, args.grad_temperature + number);
}

template <class Real, bool General>
__device__ __forceinline__ void backward_scalars(const BackwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, memory);
    block.survey(true);
    Tile<DeviceLanes<Real>> tile;
    const auto prepare = [&] {
        if (block.resident())
            block.stage(0);
    };
    backward_block<General>(args, block, block.behind_codes(), prepare, [&](auto &shares, const auto &row) {
        with_scalar_scorer(block, args.call, row, true, [&](auto scorer, const auto &reference) {
            backward_row<Real, General>(args, block, shares, row, scorer, reference, tile, [](int) {});
        });
    });
}

template <class Real, bool General>
__device__ __forceinline__ void backward_logits(const BackwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, memory);
    Tile<DeviceLanes<Real>> tile;
    const auto prepare = [&] {
        if (block.resident())
            block.stage(0);
    };
    backward_block<General>(args, block, block.behind_codes(), prepare, [&](auto &shares, const auto &row) {
        with_logit_scorer(block, args.call, row, tile, [&](auto scorer, const auto &reference) {
            backward_row<Real, General>(args, block, shares, row, scorer, reference, tile, [&](int k) {
                load_logits(args.call, row.row, k, reference.usable, tile.given);
            });
        });
    });
}

} // namespace

#define FQVAE_BACKWARD(name, program, Real, General)                                                         \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocksAtOnce<Real>)                              \
        name(const __grid_constant__ BackwardArguments args) {                                               \
        program<Real, General>(args);                                                                        \
    }

FQVAE_BACKWARD(backward_z_float, backward_scalars, float, false)
FQVAE_BACKWARD(backward_z_general_float, backward_scalars, float, true)
FQVAE_BACKWARD(backward_z_general_double, backward_scalars, double, true)
FQVAE_BACKWARD(backward_logits_general_float, backward_logits, float, true)
FQVAE_BACKWARD(backward_logits_general_double, backward_logits, double, true)

} // namespace fqvae
