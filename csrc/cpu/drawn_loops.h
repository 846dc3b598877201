// A group of rows of the estimators that draw one code a row, forwards and backwards, around the programs of
// row/drawn.h.
#pragma once

#include "../row/drawn.h"
#include "row_groups.h"

namespace fqvae {
namespace {

template <class L> struct DrawnLoops {
    using Real = typename L::Real;
    using F = typename L::F;
    using U = typename L::U;
    using IO = RowIO<L>;
    static constexpr int width = L::width;

    template <class Scorer, class LoadTile>
    static void forward_group(const Group<L> &group, const Outputs &out, Scorer scorer,
                              const Reference<L> &reference, LoadTile load_tile) {
        const bool tabulated = Scorer::kBounded && group.tabulated();
        const auto place = tabulated ? group.table.locate(reference.x) : typename PosteriorTable<L>::Place{};
        const bool all_tabulated = tabulated && L::all(place.inside);
        const bool drawn = out.indices || out.quantized || out.weights;
        RowStats<L> stats{};
        F kl_bits = L::set(0);
        const bool sum_kl = out.kl && !all_tabulated;
        if (drawn || sum_kl) {
            PosteriorSums<L> sums;
            if (sum_kl || !IO::kManyPrograms)
                sums.template add<true>(group.codes(), scorer, group.tile, load_tile);
            else
                sums.template add<!IO::kManyPrograms>(group.codes(), scorer, group.tile, load_tile);
            if (sum_kl)
                kl_bits = sums.weighted_logit / sums.partition - L::log2(sums.partition, L::set(0));
            if (drawn)
                stats.index = draw(group, sums.partition, scorer, load_tile);
        }
        if (tabulated && out.kl)
            kl_bits = L::select(place.inside, group.table.value(place), kl_bits);
        IO::template store_row<Scorer>(group.call, group.codebook, out, group.rows, reference, stats,
                                       kl_bits);
    }

    // Returns the group's part of the temperature's gradient.
    template <class Scorer, class LoadTile>
    static double backward_group(const Group<L> &group, const BackwardArguments &args, Scorer scorer,
                                 const Reference<L> &reference, LoadTile load_tile, Real *code_sums,
                                 Real *node_sums) {
        const Call &call = group.call;
        Tile<L> &tile = group.tile;
        const bool reinmax = call.estimator == Estimator::kReinMax;
        const void *grad_weights = args.incoming.weights;
        auto incoming = IO::load_incoming(call, args, group.rows, reference.usable);
        // The general program also serves a temperature without gradients of the weights: those are 0 then.
        const bool general = !IO::kManyPrograms || grad_weights || args.grad_temperature;
        const auto load_both = [&](int first, int count) {
            load_tile(first, count);
            if (grad_weights) {
                Memory<L>::load_tile(grad_weights, call.dtype, group.rows, call.codes, first, count,
                                     tile.grad_weights);
                mask_tile<L>(tile.grad_weights, count, reference.usable, 0);
            } else if (general) {
                memset(tile.grad_weights, 0, sizeof(Real) * static_cast<size_t>(count) * width);
            }
        };

        uint32_t indices[width] = {};
        for (int i = 0; i < group.rows.count; ++i)
            indices[i] = static_cast<uint32_t>(args.kept.indices[group.rows.first + i * group.rows.stride]);
        // Nothing may overflow in the other lanes, the largest codes' distances neither.
        const auto usable = usable_rows<L>(group.rows, reference.usable);
        const F offset = L::select(usable, scorer.offset_at(L::load_word(indices)), L::set(0));
        F chosen; // the one-hot's part of dL/dl
        const auto add_chosen = [&](int first, int count) {
            Real lanes[width];
            L::store(lanes, chosen);
            for (int i = 0; i < group.rows.count; ++i) {
                const int k = static_cast<int>(indices[i]) - first;
                if (k >= 0 && k < count)
                    tile.given[k * width + i] += lanes[i];
            }
        };
        const auto store_tile = [&](int first, int count) {
            if (args.grad_input)
                Memory<L>::store_tile(args.grad_input, call.dtype, group.rows, call.codes, first, count,
                                      tile.given);
        };
        const Real inverse_temperature = group.constants.inverse_temperature;
        const auto run = [&](auto general, auto with_posterior, auto codebook_sums) {
            DrawnSums<L> sums;
            sums.template add<general, with_posterior>(group.codes(), inverse_temperature, scorer,
                                                       incoming.chosen_weight, tile, load_both);
            sums.offsets = L::select(usable, sums.offsets, L::set(0));
            sums.posterior_offsets = L::select(usable, sums.posterior_offsets, L::set(0));
            const auto slopes = DrawnSlopes<L>::of(scorer, reinmax, inverse_temperature, sums,
                                                   incoming.quantized, incoming.kl, offset);
            chosen = slopes.chosen;
            return drawn_gradient<L, general, with_posterior, general>(
                group.codes(), inverse_temperature, scorer, slopes, incoming.chosen_weight,
                group.codes().one_tile(), codebook_sums, tile, load_both, add_chosen, store_tile);
        };
        const auto run_with = [&](auto with_posterior) {
            using Yes = std::true_type;
            using No = std::false_type;
            const typename IO::CodebookSums sums{code_sums};
            if constexpr (IO::kManyPrograms)
                if (!general)
                    return args.grad_codebook ? run(No(), with_posterior, sums)
                                              : run(No(), with_posterior, typename IO::NoCodebookSums());
            return run(Yes(), Yes(), sums);
        };
        const auto without_posterior = std::bool_constant<!IO::kManyPrograms>();

        RowGradient<L> gradient;
        if (Scorer::kBounded && group.tabulated()) { // rows within the table take their KL's gradient from it
            const auto place = group.table.locate(reference.x);
            const F kl = L::select(place.inside, incoming.kl, L::set(0)) * IO::real(kLn2);
            if (node_sums)
                group.table.deposit(place, kl, node_sums);
            incoming.kl = L::select(place.inside, L::set(0), incoming.kl);
            gradient = L::all(place.inside) ? run_with(without_posterior) : run_with(std::true_type());
            gradient.input = L::fma(kl * IO::real(kLengthScale), group.table.slope(place), gradient.input);
        } else {
            gradient = reinmax || args.incoming.kl ? run_with(std::true_type()) : run_with(without_posterior);
        }
        F direct = incoming.quantized; // to the code at the index
        if constexpr (Scorer::kInside)
            direct = L::fma(chosen, L::set(0) - offset, direct);
        else if constexpr (!Scorer::kGivenLogits)
            direct = L::fma(chosen, scorer.excess() - offset, direct);
        IO::add_at_indices(args.kept.indices, group.rows, direct, code_sums);
        if (args.grad_input && !call.is_logits)
            Memory<L>::store(args.grad_input, call.dtype, group.rows, L::fma(chosen, offset, gradient.input));
        return args.grad_temperature ? L::sum(gradient.temperature) : 0;
    }

  private:
    template <class Scorer, class LoadTile>
    static U draw(const Group<L> &group, F partition, Scorer scorer, LoadTile load_tile) {
        const F uniform = row_uniform<L>(group.philox, *group.code_keys, group.keys);
        DrawnIndex<L> found(uniform, partition);
        found.search(group.codes(), group.constants.numbers, scorer, group.codes().one_tile(), group.tile,
                     load_tile);
        const auto last = static_cast<uint32_t>(group.call.codes - 1); // whatever the sums were
        const auto within = L::less(L::to_real(found.index), L::set(static_cast<Real>(group.call.codes)));
        return L::select(within, found.index, L::set_word(last));
    }
};

} // namespace
} // namespace fqvae
