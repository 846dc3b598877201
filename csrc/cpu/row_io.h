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

    static F real(double x) { return L::set(static_cast<Real>(x)); }

    static CallConstants<L> constants(const Problem &problem, const Plan &plan, const Codebook &codebook) {
        return {L::numbers(plan.numbers), static_cast<Real>(__builtin_log2(problem.codes)),
                static_cast<Real>(1 / problem.temperature), static_cast<Real>(codebook.bounds.shift),
                static_cast<Real>(codebook.bounds.shift_below)};
    }

    // kl_bits: sum of q log2 q. with_posterior: will load_sums want log2_partition and mean_logit?
    template <class Scorer>
    static void store_row(const Problem &problem, const Codebook &codebook, const ForwardOutputs &out,
                          const Rows &rows, const Reference<L> &z, const Scorer &, const RowSums<L> &sums,
                          bool with_posterior, F kl_bits) {
        const F nan = real(__builtin_nan(""));
        store_indices(out.indices, rows, sums.index);
        if (problem.hard)
            store_codes(problem, codebook, out.quantized, out.indices, rows, z.usable);
        else
            Memory<L>::store(
                out.quantized, problem.dtype, rows,
                L::select(z.usable, L::fma(sums.mean_offset, real(1 / Scorer::kOffsetScale), z.point), nan));
        const F kl = L::fma(kl_bits, real(kLn2), real(__builtin_log(problem.codes)));
        Memory<L>::store(out.kl, kReal, rows, L::select(z.usable, L::max(kl, L::set(0)), nan));
        if (out.weights && problem.hard) {
            bool usable[width];
            for (int i = 0; i < width; ++i)
                usable[i] = L::get(z.usable, i);
            Memory<L>::store_one_hot(out.weights, problem.dtype, rows, problem.codes, out.indices, usable);
        }
        if (out.sums) {
            const auto keep = [&](int s, F x) {
                Memory<L>::store(static_cast<Real *>(out.sums) + s * problem.rows, kReal, rows, x);
            };
            keep(0, sums.mean_offset);
            keep(1, sums.log2_total);
            // What is not needed is not written: memory that nobody writes to is never mapped.
            if (!Scorer::kBounded)
                keep(2, sums.shift);
            if (with_posterior) {
                keep(3, sums.log2_partition);
                keep(4, sums.mean_logit);
            }
        }
    }

    // with_posterior: will the KL's gradient be taken from them? But not that of the rows in `tabulated`.
    template <class Scorer>
    static RowSums<L> load_sums(const BackwardArguments &args, const Problem &problem, const Rows &rows,
                                const CallConstants<L> &call, const Scorer &, bool with_posterior,
                                M tabulated) {
        const auto kept = [&](int s, Real elsewhere = 0) {
            return Memory<L>::load(static_cast<const Real *>(args.sums) + s * problem.rows, kReal, rows,
                                   elsewhere);
        };
        RowSums<L> sums{};
        sums.mean_offset = kept(0);
        // Lanes without a row get weights of 0, at any temperature.
        sums.log2_total = kept(1, static_cast<Real>(-kLowestLogit));
        sums.shift = Scorer::kBounded ? L::set(call.shift - call.shift_below)
                                      : kept(2, static_cast<Real>(-0x1p20)); // below any cost
        if (with_posterior) {
            sums.log2_partition = L::select(tabulated, L::set(0), kept(3));
            sums.mean_logit = L::select(tabulated, L::set(0), kept(4));
        }
        return sums;
    }

    // What flows into the rows; nothing flows into those that are not usable.
    static RowUpstream<L> load_upstream(const BackwardArguments &args, const Problem &problem,
                                        const Rows &rows, M usable) {
        const F zero = L::set(0);
        RowUpstream<L> up;
        up.quantized = L::select(usable, Memory<L>::load(args.grad_quantized, problem.dtype, rows), zero);
        up.direct = problem.hard ? zero : up.quantized;
        up.kl = L::select(usable, Memory<L>::load(args.grad_kl, kReal, rows), zero);
        up.reference = zero;
        up.weights = args.grad_weights != nullptr;
        if (up.weights) {
            Real lanes[width] = {};
            with_storage<Real>(problem.dtype, [&](auto *type) {
                const auto *v = static_cast<decltype(type)>(const_cast<void *>(args.grad_weights));
                for (int i = 0; i < rows.count; ++i) {
                    const int64_t row = rows.first + i * rows.stride;
                    lanes[i] = widen(v[row * problem.codes + args.indices[row]]);
                }
            });
            up.reference = L::select(usable, L::load(lanes), zero);
        }
        return up;
    }

    // The direct term of straight-through rows: all of it to the chosen code.
    static void add_one_hot(const BackwardArguments &args, const Rows &rows, F quantized, Real *code_sums) {
        Real lanes[width];
        L::store(lanes, quantized);
        for (int i = 0; i < rows.count; ++i)
            code_sums[args.indices[rows.first + i * rows.stride] * width + i] += lanes[i];
    }

    static void store_indices(int64_t *indices, const Rows &rows, typename L::U index) {
        if (rows.stride == 1 && rows.count == width)
            return L::store_indices(indices + rows.first, index);
        uint32_t lanes[width];
        L::store_word(lanes, index);
        for (int i = 0; i < rows.count; ++i)
            indices[rows.first + i * rows.stride] = lanes[i];
    }

    // The codes at the rows' indices, exactly as they came.
    static void store_codes(const Problem &problem, const Codebook &codebook, void *quantized,
                            const int64_t *indices, const Rows &rows, M usable) {
        const auto *codes = static_cast<const Real *>(codebook.given);
        with_storage<Real>(problem.dtype, [&](auto *type) {
            auto *to = static_cast<decltype(type)>(quantized);
            for (int i = 0; i < rows.count; ++i) {
                const int64_t row = rows.first + i * rows.stride;
                narrow(L::get(usable, i) ? codes[indices[row]] : static_cast<Real>(__builtin_nan("")),
                       to + row);
            }
        });
    }

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
