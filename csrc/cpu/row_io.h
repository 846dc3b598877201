// What goes into a group of rows and what comes out of it.
#pragma once

#include "groups.h"

namespace fqvae {
namespace {

template <class L> struct RowIO {
    using Real = typename L::Real;
    using F = typename L::F;
    using M = typename L::M;
    static constexpr int width = L::width;
    static constexpr DType kReal = sizeof(Real) == 8 ? DType::kFloat64 : DType::kFloat32;

    // true: what a call doesn't want saves time by programs of their own. One row at a time is for tests and
    // for float64, where a program that serves all saves time to compile.
    static constexpr bool kManyPrograms = width > 1;

    static F real(double x) { return L::set(static_cast<Real>(x)); }

    static CallConstants<L> constants(const Call &call, const Plan &plan, const Codebook &codebook) {
        return {L::numbers(plan.numbers), static_cast<Real>(call.log2_codes),
                inverse_of_temperature<Real>(call.temperature), static_cast<Real>(codebook.bounds.shift),
                static_cast<Real>(codebook.bounds.shift_below)};
    }

    // Whether the backward pass takes the forward pass's weights. Of the temperature's gradient it wants
    // more.
    static bool keeps_weights(const Call &call, const BackwardArguments &args) {
        return args.kept.weights && !gives_codes(call) && !args.grad_temperature &&
               Memory<L>::is_real(call.dtype);
    }

    // Whether quantized is a code, and weights are one-hot.
    static bool gives_codes(const Call &call) { return call.hard || call.estimator != Estimator::kGumbel; }

    // All of a row but soft weights and stats. kl_bits: sum of q log2 q.
    template <class Scorer>
    static void store_row(const Call &call, const Codebook &codebook, const Outputs &out, const Rows &rows,
                          const Reference<L> &reference, const RowStats<L> &stats, F kl_bits) {
        const auto *codes = static_cast<const Real *>(codebook.given);
        const auto row = finish_row<L, Scorer>(reference, stats, kl_bits, static_cast<Real>(call.ln_codes),
                                               gives_codes(call),
                                               [&](typename L::U index) { return L::gather(codes, index); });
        if (out.indices)
            store_indices(out.indices, rows, stats.index);
        if (out.quantized)
            Memory<L>::store(out.quantized, call.dtype, rows, row.quantized);
        if (out.kl)
            Memory<L>::store(out.kl, kReal, rows, row.kl);
        if (out.weights && gives_codes(call)) {
            uint32_t indices[width];
            bool usable[width];
            L::store_word(indices, stats.index);
            for (int i = 0; i < width; ++i)
                usable[i] = L::get(reference.usable, i);
            Memory<L>::store_one_hot(out.weights, call.dtype, rows, call.codes, indices, usable,
                                     no_value<Real>());
        }
    }

    // with_posterior: load_stats will want the posterior's.
    template <class Scorer>
    static void store_stats(const Call &call, const Outputs &out, const Rows &rows, const RowStats<L> &stats,
                            bool with_posterior) {
        if (out.stats)
            fqvae::store_stats(stats, !Scorer::kBounded, with_posterior, [&](Stat stat, F x) {
                Memory<L>::store(static_cast<Real *>(out.stats) + stat * call.rows, kReal, rows, x);
            });
    }

    // with_posterior: the KL's gradient will be taken from them, but not that of the rows in `tabulated`.
    template <class Scorer>
    static RowStats<L> load_stats(const Call &call, const BackwardArguments &args, const Rows &rows,
                                  const CallConstants<L> &constants, bool with_posterior, M tabulated,
                                  M usable) {
        const auto load = [&](Stat stat, Real otherwise) {
            const bool posterior = stat == kLog2Partition || stat == kMeanLogit;
            if (posterior && !args.incoming.kl) // the forward pass may have left none
                return L::set(0);
            const F x = Memory<L>::load(static_cast<const Real *>(args.kept.stats) + stat * call.rows, kReal,
                                        rows, otherwise);
            return posterior ? L::select(tabulated, L::set(0), x) : x;
        };
        auto stats = fqvae::load_stats<L>(!Scorer::kBounded, with_posterior, load);
        if (Scorer::kBounded)
            stats.shift = L::set(constants.shift - constants.shift_below);
        else // of the largest codes it may have overflowed
            stats.mean_offset = L::select(usable, stats.mean_offset, L::set(0));
        return stats;
    }

    static RowIncoming<L> load_incoming(const Call &call, const BackwardArguments &args, const Rows &rows,
                                        M usable) {
        const Incoming &incoming = args.incoming;
        F chosen_weight = L::set(0);
        if (incoming.weights) {
            Real lanes[width] = {};
            with_storage<Real>(call.dtype, [&](auto *type) {
                const auto *v = static_cast<decltype(type)>(const_cast<void *>(incoming.weights));
                for (int i = 0; i < rows.count; ++i) {
                    const int64_t row = rows.first + i * rows.stride;
                    lanes[i] = widen(v[row * call.codes + args.kept.indices[row]]);
                }
            });
            chosen_weight = L::load(lanes);
        }
        return {Memory<L>::load(incoming.quantized, call.dtype, rows),
                Memory<L>::load(incoming.kl, kReal, rows),
                chosen_weight,
                incoming.weights != nullptr,
                usable,
                gives_codes(call)};
    }

    // Adds each row's x to the code at its index: the direct term, where quantized is a code.
    static void add_at_indices(const int64_t *indices, const Rows &rows, F x, Real *code_sums) {
        Real lanes[width];
        L::store(lanes, x);
        for (int i = 0; i < rows.count; ++i)
            code_sums[indices[rows.first + i * rows.stride] * width + i] += lanes[i];
    }

    static void store_indices(int64_t *indices, const Rows &rows, typename L::U index) {
        if (rows.stride == 1 && rows.count == width)
            return L::store_indices(indices + rows.first, index);
        uint32_t lanes[width];
        L::store_word(lanes, index);
        for (int i = 0; i < rows.count; ++i)
            indices[rows.first + i * rows.stride] = lanes[i];
    }

    // Where nobody wants the codebook's gradient.
    struct NoCodebookSums {
        FQVAE_INLINE void add(int, int, F) const {}
        FQVAE_INLINE void add(int, int, F, F) const {}
    };

    // The sums of a codebook's gradient, lane by lane.
    struct CodebookSums {
        Real *sums; // (codes, width)
        FQVAE_INLINE void add(int first, int k, F x) const {
            Real *sum = sums + (first + k) * width;
            L::store(sum, L::load(sum) + x);
        }
        FQVAE_INLINE void add(int first, int k, F a, F b) const {
            Real *sum = sums + (first + k) * width;
            L::store(sum, L::fma(a, b, L::load(sum)));
        }
    };

    // Adds the lanes of each code's sum to its gradient, in a fixed order, and clears them.
    static void move_lanes(Real *code_sums, int codes, double *gradient) {
        for (int k = 0; k < codes; ++k)
            gradient[k] += L::sum(L::load(code_sums + k * width));
        memset(code_sums, 0, sizeof(Real) * static_cast<size_t>(codes) * width);
    }
};

} // namespace
} // namespace fqvae
