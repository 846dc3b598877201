// A group of rows of the estimator gumbel, forwards and backwards, around the programs of row/forward.h and
// row/backward.h.
#pragma once

#include "row_groups.h"

namespace fqvae {
namespace {

template <class L> struct GumbelLoops {
    using Real = typename L::Real;
    using F = typename L::F;
    using IO = RowIO<L>;

    template <class Scorer, class LoadTile>
    static void forward_group(const Group<L> &group, const Outputs &out, Scorer scorer,
                              const Reference<L> &reference, LoadTile load_tile) {
        const Call &call = group.call;
        const auto run = [&](auto with_posterior) {
            ForwardSums<L, with_posterior, Scorer> sums;
            sums.add(group.codes(), group.context(scorer), load_tile);
            return sums.finish(group.constants);
        };
        RowStats<L> stats;
        F kl_bits = L::set(0);
        const bool tabulated = Scorer::kBounded && group.tabulated();
        const auto place = tabulated ? group.table.locate(reference.x) : typename PosteriorTable<L>::Place{};
        const bool with_posterior = out.kl && !(tabulated && L::all(place.inside));
        if (with_posterior) {
            stats = run(std::true_type());
            kl_bits = stats.mean_logit - stats.log2_partition;
            if (tabulated)
                kl_bits = L::select(place.inside, group.table.value(place), kl_bits);
        } else {
            stats = run(std::bool_constant<!Scorer::kBounded && !IO::kManyPrograms>());
            if (tabulated)
                kl_bits = group.table.value(place);
        }
        IO::template store_row<Scorer>(call, group.codebook, out, group.rows, reference, stats, kl_bits);
        IO::template store_stats<Scorer>(call, out, group.rows, stats, with_posterior);
        if (out.weights && !call.hard) {
            const auto store_tile = [&](int first, int count) {
                Real *weights = group.tile.noise;
                mask_tile<L>(weights, count, reference.usable, no_value<Real>());
                Memory<L>::store_tile(out.weights, call.dtype, group.rows, call.codes, first, count, weights);
            };
            weights_row<L>(group.codes(), group.context(scorer), stats, group.codes().one_tile(), load_tile,
                           store_tile);
        }
    }

    // Returns the group's part of the temperature's gradient.
    template <class Scorer, class LoadTile>
    static double backward_group(const Group<L> &group, const BackwardArguments &args, Scorer scorer,
                                 const Reference<L> &reference, LoadTile load_tile, Real *code_sums,
                                 Real *node_sums) {
        const Call &call = group.call;
        Tile<L> &tile = group.tile;
        const bool keeps_weights = IO::kManyPrograms && IO::keeps_weights(call, args);
        auto incoming = IO::load_incoming(call, args, group.rows, reference.usable);
        const auto load_all = [&](int first, int count) {
            load_tile(first, count);
            const auto load = [&](const void *from, Real *to) {
                if (from) {
                    Memory<L>::load_tile(from, call.dtype, group.rows, call.codes, first, count, to);
                    mask_tile<L>(to, count, reference.usable, 0);
                }
            };
            load(args.incoming.weights, tile.grad_weights);
            load(keeps_weights ? args.kept.weights : nullptr, tile.noise);
        };
        const auto store_tile = [&](int first, int count) {
            if (args.grad_input)
                Memory<L>::store_tile(args.grad_input, call.dtype, group.rows, call.codes, first, count,
                                      tile.given);
        };
        const bool tabulated = Scorer::kBounded && group.tabulated();
        const auto place = tabulated ? group.table.locate(reference.x) : typename PosteriorTable<L>::Place{};
        const auto run = [&](auto general, auto with_posterior, auto kept_weights, auto codebook_sums) {
            const auto stats = IO::template load_stats<Scorer>(
                call, args, group.rows, group.constants, with_posterior, place.inside, reference.usable);
            if (general && incoming.weights)
                incoming.weights_mean = weights_mean_row<L, with_posterior, kept_weights>(
                    group.codes(), group.context(scorer), stats, incoming, load_all);
            return backward_row<L, general, with_posterior, kept_weights>(
                group.codes(), group.context(scorer), stats, incoming,
                general && incoming.weights && group.codes().one_tile(), codebook_sums, load_all, store_tile);
        };
        const auto run_with = [&](auto with_posterior) {
            using Yes = std::true_type;
            using No = std::false_type;
            const typename IO::CodebookSums sums{code_sums};
            if constexpr (IO::kManyPrograms) {
                if (keeps_weights)
                    return run(Yes(), with_posterior, Yes(), sums);
                if (!args.incoming.weights && !args.grad_temperature && !args.grad_codebook)
                    return run(No(), with_posterior, No(), typename IO::NoCodebookSums());
            }
            return args.incoming.weights || args.grad_temperature ? run(Yes(), with_posterior, No(), sums)
                                                                  : run(No(), with_posterior, No(), sums);
        };
        const auto without_posterior = std::bool_constant<!Scorer::kBounded && !IO::kManyPrograms>();

        RowGradient<L> gradient;
        if (tabulated) { // rows within the table take their KL's gradient from it
            const F kl = L::select(place.inside, incoming.kl, L::set(0)) * IO::real(kLn2);
            if (node_sums)
                group.table.deposit(place, kl, node_sums);
            incoming.kl = L::select(place.inside, L::set(0), incoming.kl);
            gradient = L::all(place.inside) ? run_with(without_posterior) : run_with(std::true_type());
            gradient.input = L::fma(kl * IO::real(kLengthScale), group.table.slope(place), gradient.input);
        } else {
            gradient = args.incoming.kl ? run_with(std::true_type()) : run_with(without_posterior);
        }
        if (call.hard)
            IO::add_at_indices(args.kept.indices, group.rows, incoming.quantized, code_sums);
        if (args.grad_input && !call.is_logits)
            Memory<L>::store(args.grad_input, call.dtype, group.rows, gradient.input);
        return args.grad_temperature ? L::sum(gradient.temperature) : 0;
    }
};

} // namespace
} // namespace fqvae
