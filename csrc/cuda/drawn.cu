// The estimators that draw one code a row (row/drawn.h): a row to a thread, or to several that share its
// codes.
#include "../row/drawn.h"

#include "backward_block.h"
#include "outputs.h"
#include "scorers.h"

namespace fqvae {
namespace {

constexpr int kTogether = 64; // tiles of a thread: sums of neighbours come first, which keeps rounding down

// body(run): runs of neighbouring tiles of the caller's.
template <class Body> __device__ __forceinline__ void each_run(CodeRange range, Body body) {
    for (int begin = range.begin; begin < range.end; begin += kTogether * range.step)
        body(CodeRange{begin, min(range.end, begin + kTogether * range.step), range.step});
}

// The sums of a warp's threads, in the order of the tiles that they have in hand: of the threads of a row.
template <class Real> struct InOrder {
    Real before, all; // of the threads below, and of all of them: the latter the same bits in each thread

    __device__ __forceinline__ InOrder(Real mine, int lane, int lanes) : before(0), all(mine) {
        if (lanes == 1)
            return;
        Real up_to_here = mine;
#pragma unroll 1
        for (int distance = 1; distance < lanes; distance *= 2) {
            const Real below = __shfl_up_sync(kWholeWarp, up_to_here, distance, lanes);
            up_to_here = lane >= distance ? up_to_here + below : up_to_here;
        }
        before = __shfl_up_sync(kWholeWarp, up_to_here, 1, lanes);
        before = lane > 0 ? before : 0;
        all = __shfl_sync(kWholeWarp, up_to_here, lanes - 1, lanes);
    }
};

// The index of a row: the last code that weighs something of those before which no more than `threshold` has
// been counted, u times the sum over all codes. Rounding may count the sum in another way than the first time
// and even let it fall between two codes: at worst a neighbour is drawn, never a code without weight.
template <class Real> struct IndexSearch {
    const Real threshold;
    Real counted = 0, of_run = 0; // before the tiles to come, of_run of them not in `counted` yet
    uint32_t index = 0;

    // The weights of a tile, 0 for a thread without one, whose first code is `number`. All threads of a warp
    // take part.
    __device__ __forceinline__ void add(const Real *weights, uint32_t number, int lane, int lanes) {
        const Real two = weights[0] + weights[1], three = two + weights[2];
        const Real within[4] = {0, weights[0], two, three};
        const InOrder<Real> sums(three + weights[3], lane, lanes);
        const Real before = counted + (of_run + sums.before);
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j)
            index = weights[j] > 0 && before + within[j] <= threshold ? number + j : index;
        of_run += sums.all;
    }
    __device__ __forceinline__ void end_run() {
        counted += of_run;
        of_run = 0;
    }
    // The threads of a row agree: the first code that weighs something is a candidate of one of them.
    __device__ __forceinline__ void merge(int lanes) {
        for (int distance = 1; distance < lanes; distance *= 2)
            index = max(index, __shfl_xor_sync(kWholeWarp, index, distance));
    }
};

template <class Real, class Scorer, class LoadTile>
__device__ __forceinline__ void forward_row(const ForwardArguments &args, Block<Real> &block,
                                            const RowOfThread<Real> &row, Scorer scorer,
                                            const Reference<DeviceLanes<Real>> &reference,
                                            Tile<DeviceLanes<Real>> &tile, LoadTile load_tile) {
    using L = DeviceLanes<Real>;
    const Call &call = args.call;
    const bool with_kl = args.out.kl != nullptr;
    // Of given logits no code is looked at, and so none is staged.
    const auto each_part = [&](auto body) {
        if constexpr (Scorer::kGivenLogits)
            body(0, CodeRange{4 * row.lane, call.codes, 4 * block.lanes()});
        else
            block.template each_stage<Scorer::kInside>(row.lane, body);
    };
    PosteriorSums<L> sums;
    each_part([&](int stage, CodeRange range) {
        const auto load = [&](int first, int) { load_tile(stage + first); };
        each_run(range, [&](CodeRange run) {
            PosteriorSums<L> part;
            if (with_kl)
                part.template add<true>(run, scorer, tile, load);
            else
                part.template add<false>(run, scorer, tile, load);
            sums.partition += part.partition;
            sums.weighted_logit += part.weighted_logit;
        });
    });
    const Real partition = sum_of_lanes(sums.partition, block.lanes());
    const Real weighted_logit = with_kl ? sum_of_lanes(sums.weighted_logit, block.lanes()) : 0;

    const bool one_tile = call.codes <= 4 * block.lanes(); // and it is still there
    IndexSearch<Real> search{block.row_uniform(row.row) * partition};
    each_part([&](int stage, CodeRange range) {
        const typename L::Exp2 exp2;
        int turn = 0;
        for (int begin = 0; begin < range.end; begin += range.step) { // a warp's threads go along together
            const int first = begin + range.begin;
            Real weights[4] = {0, 0, 0, 0};
            if (first < range.end) {
                if (!one_tile)
                    load_tile(stage + first);
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    weights[j] = exp2(scorer.logit(j, scorer.offset(first + j)));
            }
            search.add(weights, static_cast<uint32_t>(stage + first), row.lane, block.lanes());
            if (++turn % kTogether == 0)
                search.end_run();
        }
        search.end_run();
    });
    search.merge(block.lanes());

    if (row.there && row.lane == 0) {
        RowStats<L> stats{};
        stats.index = search.index;
        store_row<Scorer>(args, block, row.row, reference, stats,
                          weighted_logit / partition - L::log2(partition, 0), true);
    }
    if (args.out.weights && row.there)
        for (int k = 4 * row.lane; k < call.codes; k += 4 * block.lanes()) {
            Real one_hot[4];
#pragma unroll
            for (int j = 0; j < 4; ++j)
                one_hot[j] = value_or_nan<L>(reference.usable, k + j == static_cast<int>(search.index));
            block.store_four(args.out.weights, row.row, k, one_hot);
        }
}

// General: gradients of the weights may come, or the temperature's is wanted. WithPosterior: something is
// wanted under q.
template <bool General, bool WithPosterior, class Real, class Scorer, class LoadTile>
__device__ __forceinline__ void backward_row(const BackwardArguments &args, Block<Real> &block,
                                             Shares<Real> &shares, const RowOfThread<Real> &row,
                                             Scorer scorer, const Reference<DeviceLanes<Real>> &reference,
                                             Tile<DeviceLanes<Real>> &tile, LoadTile load_logits) {
    using L = DeviceLanes<Real>;
    const Call &call = args.call;
    const bool usable = reference.usable;
    const auto incoming = load_incoming<Real>(args, row.row, usable, true);
    const auto load_tile = [&](int k) {
        load_logits(k);
        if (General && incoming.weights)
            load_usable(args.incoming.weights, block, row.row, k, usable, tile.grad_weights);
        else if (General)
            for (Real &v : tile.grad_weights)
                v = 0;
    };
    const Real inverse_temperature = block.constants.inverse_temperature;
    DrawnSums<L> sums;
    block.template each_stage<Scorer::kInside>(row.lane, [&](int stage, CodeRange range) {
        sums.template add<General, WithPosterior>(range, inverse_temperature, scorer, incoming.chosen_weight,
                                                  tile, [&](int first, int) { load_tile(stage + first); });
    });
    for (Real *sum : {&sums.total, &sums.offsets, &sums.weights, &sums.partition, &sums.posterior_offsets,
                      &sums.posterior_weights, &sums.weighted_logit})
        *sum = sum_of_lanes(*sum, block.lanes());

    // The code at the index, as the scorer sees it; shared memory may hold another part of the codebook.
    const int index = static_cast<int>(args.kept.indices[row.row]);
    const Real chosen_offset = scorer.offset_of(block.as_staged(block.given(index)), block.given(index));
    const auto slopes = DrawnSlopes<L>::of(scorer, call.estimator == Estimator::kReinMax, inverse_temperature,
                                           sums, incoming.quantized, incoming.kl, chosen_offset);
    Real of_code = incoming.quantized; // what the code at the index gets besides
    if constexpr (!Scorer::kGivenLogits)
        of_code += slopes.chosen * ((Scorer::kInside ? 0 : scorer.excess()) - chosen_offset);

    RowGradient<L> gradient{0, 0};
    const auto gradients = [&](int stage, CodeRange range) {
        const bool weighed = block.resident() && range.one_tile();
        const auto more = drawn_gradient<L, General, WithPosterior, General>(
            range, inverse_temperature, scorer, slopes, incoming.chosen_weight, weighed, shares.codebook,
            tile, [&](int first, int) { load_tile(stage + first); },
            [&](int first, int) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    tile.given[j] += stage + first + j == index ? slopes.chosen : 0;
            },
            [&](int first, int) { store_grad_logits(args, block, row, stage + first, usable, tile.given); });
        gradient.input += more.input;
        gradient.temperature += more.temperature;
        const int chosen = index - stage;
        if (chosen >= 0 && chosen < range.end && block_of(chosen) % block.lanes() == row.lane)
            shares.codebook.add(chosen & ~3, chosen & 3, of_code);
    };
    block.template each_stage<Scorer::kInside>(row.lane, gradients,
                                               [&](int stage, int codes) { shares.move(stage, codes); });
    gradient.input = sum_of_lanes(gradient.input, block.lanes());
    if (usable)
        shares.temperature += static_cast<double>(gradient.temperature);
    if (!Scorer::kGivenLogits && args.grad_input && row.there && row.lane == 0)
        store_value(args.grad_input, call.dtype, row.row,
                    usable ? L::fma(slopes.chosen, chosen_offset, gradient.input) : 0);
}

template <class Real> __device__ __forceinline__ void forward_scalars(const ForwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, args.launch, memory);
    block.survey(true);
    Tile<DeviceLanes<Real>> tile;
    if (block.resident()) {
        block.stage(0);
        __syncthreads();
    }
    block.each_row([&](const RowOfThread<Real> &row) {
        with_scalar_scorer(block, args.call, row, true, [&](auto scorer, const auto &reference) {
            forward_row(args, block, row, scorer, reference, tile, [](int) {});
        });
    });
}

template <class Real> __device__ __forceinline__ void forward_logits(const ForwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, args.launch, memory);
    block.survey_for_logits();
    Tile<DeviceLanes<Real>> tile;
    block.each_row([&](const RowOfThread<Real> &row) {
        with_logit_scorer(block, args.call, row, tile, [&](auto scorer, const auto &reference) {
            forward_row(args, block, row, scorer, reference, tile, [&](int k) {
                load_logits(block, args.call, row.row, k, reference.usable, tile.given);
            });
        });
    });
}

// run(General, WithPosterior), for all threads alike: the shortest program that serves the call.
template <class Run>
__device__ __forceinline__ void with_backward_program(const BackwardArguments &args, Run run) {
    if (args.incoming.weights || args.grad_temperature)
        run(std::true_type{}, std::true_type{});
    else if (args.incoming.kl || args.call.estimator == Estimator::kReinMax)
        run(std::false_type{}, std::true_type{});
    else
        run(std::false_type{}, std::false_type{});
}

template <class Real> __device__ __forceinline__ void backward_scalars(const BackwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, args.launch, memory);
    block.survey(true);
    Tile<DeviceLanes<Real>> tile;
    const auto prepare = [&] {
        if (block.resident())
            block.stage(0);
    };
    backward_block<true>(args, block, block.behind_codes(), prepare, [&](auto &shares, const auto &row) {
        with_scalar_scorer<false>(block, args.call, row, false, [&](auto scorer, const auto &reference) {
            with_backward_program(args, [&](auto general, auto posterior) {
                backward_row<general, posterior>(args, block, shares, row, scorer, reference, tile,
                                                 [](int) {});
            });
        });
    });
}

template <class Real> __device__ __forceinline__ void backward_logits(const BackwardArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<Real> block(args.call, args.launch, memory);
    block.survey_for_logits();
    Tile<DeviceLanes<Real>> tile;
    const auto prepare = [&] {
        if (block.resident())
            block.stage(0);
    };
    backward_block<true>(args, block, block.behind_codes(), prepare, [&](auto &shares, const auto &row) {
        with_logit_scorer(block, args.call, row, tile, [&](auto scorer, const auto &reference) {
            with_backward_program(args, [&](auto general, auto posterior) {
                backward_row<general, posterior>(
                    args, block, shares, row, scorer, reference, tile,
                    [&](int k) { load_logits(block, args.call, row.row, k, reference.usable, tile.given); });
            });
        });
    });
}

} // namespace

#define FQVAE_DRAWN(name, Real, Arguments, program)                                                          \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocksAtOnce<Real>)                              \
        name(const __grid_constant__ Arguments args) {                                                       \
        program<Real>(args);                                                                                 \
    }

FQVAE_DRAWN(forward_drawn_z_float, float, ForwardArguments, forward_scalars)
FQVAE_DRAWN(forward_drawn_z_double, double, ForwardArguments, forward_scalars)
FQVAE_DRAWN(forward_drawn_logits_float, float, ForwardArguments, forward_logits)
FQVAE_DRAWN(forward_drawn_logits_double, double, ForwardArguments, forward_logits)
FQVAE_DRAWN(backward_drawn_z_float, float, BackwardArguments, backward_scalars)
FQVAE_DRAWN(backward_drawn_z_double, double, BackwardArguments, backward_scalars)
FQVAE_DRAWN(backward_drawn_logits_float, float, BackwardArguments, backward_logits)
FQVAE_DRAWN(backward_drawn_logits_double, double, BackwardArguments, backward_logits)

} // namespace fqvae
