// The backward pass goes over the rows as the forward pass does. Of the gradients that all rows share, each
// block leaves its part.
#include "backward_block.h"
#include "scorers.h"

namespace fqvae {
namespace {

// General, KeptWeights: as backward_row takes them.
template <bool General, bool KeptWeights, class Real, class Scorer, class LoadTile>
__device__ __forceinline__ void backward_row_of_thread(const BackwardArguments &args, Block<Real> &block,
                                                       Shares<Real> &shares, const RowOfThread<Real> &row,
                                                       Scorer scorer,
                                                       const Reference<DeviceLanes<Real>> &reference,
                                                       Tile<DeviceLanes<Real>> &tile, LoadTile load_logits) {
    using L = DeviceLanes<Real>;
    const Call &call = args.call;
    const bool usable = reference.usable;
    const PhiloxRow<L> philox = block.philox_row(row.row);
    // A thread without a row has the logits of one that is not usable, which belong to no stats.
    const bool known = row.there || !Scorer::kGivenLogits;
    const auto stats = load_stats<L>(true, true, [&](Stat stat, Real otherwise) {
        return known ? static_cast<const Real *>(args.kept.stats)[stat * call.rows + row.row] : otherwise;
    });
    auto incoming = load_incoming<Real>(args, row.row, usable, call.hard);
    const auto load_tile = [&](int k) {
        load_logits(k);
        if (General && incoming.weights)
            load_usable(args.incoming.weights, block, row.row, k, usable, tile.grad_weights);
        if (KeptWeights)
            load_usable(args.kept.weights, block, row.row, k, usable, tile.noise);
    };

    if (General && incoming.weights) {
        Real mean = 0;
        block.template each_stage<Scorer::kInside>(row.lane, [&](int stage, CodeRange range) {
            mean += weights_mean_row<L, true, KeptWeights>(range, block.context(scorer, philox, tile), stats,
                                                           incoming,
                                                           [&](int first, int) { load_tile(stage + first); });
        });
        incoming.weights_mean = sum_of_lanes(mean, block.lanes());
    }

    const int64_t index = call.hard ? args.kept.indices[row.row] : 0;
    RowGradient<L> gradient{0, 0};
    const auto gradients = [&](int stage, CodeRange range) {
        const bool weighed = General && incoming.weights && block.resident() && range.one_tile();
        const auto more = backward_row<L, General, true, KeptWeights>(
            range, block.context(scorer, philox, tile), stats, incoming, weighed, shares.codebook,
            [&](int first, int) { load_tile(stage + first); },
            [&](int first, int) { store_grad_logits(args, block, row, stage + first, usable, tile.given); });
        gradient.input += more.input;
        gradient.temperature += more.temperature;
        // The direct term of a row whose quantized is a code goes to that one.
        const int chosen = static_cast<int>(index) - stage;
        if (call.hard && chosen >= 0 && chosen < range.end && block_of(chosen) % block.lanes() == row.lane)
            shares.codebook.add(chosen & ~3, chosen & 3, incoming.quantized);
    };
    // Sums of a part of the codebook move on before the next part takes its place.
    block.template each_stage<Scorer::kInside>(row.lane, gradients,
                                               [&](int stage, int codes) { shares.move(stage, codes); });
    gradient.input = sum_of_lanes(gradient.input, block.lanes());
    if (usable)
        shares.temperature += static_cast<double>(gradient.temperature);
    if (!Scorer::kGivenLogits && args.grad_input && row.there && row.lane == 0)
        store_value(args.grad_input, call.dtype, row.row, gradient.input);
}

// run(KeptWeights), for all threads alike.
template <bool General, class Run>
__device__ __forceinline__ void with_backward_program(const BackwardArguments &args, Run run) {
    if constexpr (General) {
        if (args.kept.weights) {
            run(std::true_type{});
            return;
        }
    }
    run(std::false_type{});
}

template <class Real, bool General>
__device__ __forceinline__ void backward_scalars(const BackwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, args.launch, memory);
    block.survey(true);
    Tile<DeviceLanes<Real>> tile;
    const auto prepare = [&] {
        if (block.resident())
            block.stage(0);
    };
    backward_block<General>(args, block, block.behind_codes(), prepare, [&](auto &shares, const auto &row) {
        with_scalar_scorer(block, args.call, row, true, [&](auto scorer, const auto &reference) {
            with_backward_program<General>(args, [&](auto kept) {
                backward_row_of_thread<General, kept>(args, block, shares, row, scorer, reference, tile,
                                                      [](int) {});
            });
        });
    });
}

template <class Real, bool General>
__device__ __forceinline__ void backward_logits(const BackwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, args.launch, memory);
    block.survey_for_logits();
    Tile<DeviceLanes<Real>> tile;
    const auto prepare = [&] {
        if (block.resident())
            block.stage(0);
    };
    backward_block<General>(args, block, block.behind_codes(), prepare, [&](auto &shares, const auto &row) {
        with_logit_scorer(block, args.call, row, tile, [&](auto scorer, const auto &reference) {
            with_backward_program<General>(args, [&](auto kept) {
                backward_row_of_thread<General, kept>(
                    args, block, shares, row, scorer, reference, tile,
                    [&](int k) { load_logits(block, args.call, row.row, k, reference.usable, tile.given); });
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
