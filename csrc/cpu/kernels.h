// The loops over rows, around the programs of csrc/row/: compiled once for each instruction set and compute
// type.
#pragma once

#include "denormals.h"
#include "posterior_table.h"
#include "row_io.h"

namespace fqvae {
namespace {

template <class L> class Loops {
    using Real = typename L::Real;
    using F = typename L::F;
    using M = typename L::M;
    using IO = RowIO<L>;
    static constexpr int width = L::width;
    static constexpr DType kReal = sizeof(Real) == 8 ? DType::kFloat64 : DType::kFloat32;
    // The codebook's float sums move on to double before their rounding counts.
    static constexpr int kGroupsBetweenFlushes = 256;

  public:
    static Kernels table() {
        return {width,   sizeof(Tile<L>), forward,          backward, tabulate, posterior_gradient,
                nearest, noise,           noise_from_words, words,    floor};
    }

  private:
    // One group of rows and what its program needs.
    struct Group {
        const Problem &problem;
        const Plan &plan;
        const Codebook &codebook;
        const PosteriorTable<L> &table;
        const CallConstants<L> &call;
        const PhiloxKeys &keys;
        const PhiloxCode *code;
        Tile<L> &tile;
        Rows rows;
        PhiloxRow<L> row;

        CodeRange codes() const { return CodeRange::all<L>(problem.codes); }
        bool tabulated() const { return codebook.posterior != nullptr; }
    };

    // body(group) for all groups of rows that belong to codebook j.
    template <class Body>
    static void each_row_group(const Problem &problem, const Plan &plan, const Codebook &codebook, int64_t j,
                               Range range, Scratch &scratch, Body body) {
        const PhiloxKeys keys(problem.seed);
        const auto call = IO::constants(problem, plan, codebook);
        const PosteriorTable<L> table(codebook);
        auto &tile = *static_cast<Tile<L> *>(scratch.tile);
        each_group<L>(
            range, problem.codebooks, j, problem.row_offset, [&](const Rows &rows, uint64_t number) {
                const auto low = static_cast<uint32_t>(number), high = static_cast<uint32_t>(number >> 32);
                const auto *code = code_keys(scratch, problem.codes, high, keys);
                body(Group{problem, plan, codebook, table, call, keys, code, tile, rows,
                           PhiloxRow<L>(low, static_cast<uint32_t>(rows.stride), keys)});
            });
    }

    static void forward(const Problem &problem, const Plan &plan, const ForwardOutputs &out, Range range,
                        Scratch &scratch) {
        const FlushDenormals flush;
        for (int64_t j = 0; j < problem.codebooks; ++j) {
            const Codebook codebook = plan.codebooks[j];
            each_row_group(problem, plan, codebook, j, range, scratch, [&](const Group &group) {
                with_scorer<L>(problem, plan, codebook, group.rows, group.tile,
                               [&](auto scorer, const Reference<L> &z, auto load_tile) {
                                   forward_group(group, out, scorer, z, load_tile);
                               });
            });
        }
    }

    template <class Scorer, class LoadTile>
    static void forward_group(const Group &group, const ForwardOutputs &out, Scorer scorer,
                              const Reference<L> &z, LoadTile load_tile) {
        const Problem &problem = group.problem;
        const auto run = [&](auto with_posterior) {
            ForwardSums<L, with_posterior, Scorer> sums;
            sums.add(group.codes(), group.call, scorer, group.row, group.code, group.keys, group.tile,
                     load_tile);
            return sums.finish(group.call);
        };
        RowSums<L> sums;
        F kl_bits;
        const bool tabulated = Scorer::kBounded && group.tabulated();
        const auto place = tabulated ? group.table.locate(z.x) : typename PosteriorTable<L>::Place{};
        const bool with_posterior = !(tabulated && L::all(place.inside));
        if (with_posterior) {
            sums = run(std::true_type());
            kl_bits = sums.mean_logit - sums.log2_partition;
            if (tabulated)
                kl_bits = L::select(place.inside, group.table.value(place), kl_bits);
        } else {
            sums = run(std::bool_constant<!Scorer::kBounded>());
            kl_bits = group.table.value(place);
        }
        IO::store_row(problem, group.codebook, out, group.rows, z, scorer, sums, with_posterior, kl_bits);
        if (out.weights && !problem.hard) {
            const auto store_tile = [&](int first, int count) {
                Real *weights = group.tile.noise;
                mask_tile<L>(weights, count, z.usable, static_cast<Real>(__builtin_nan("")));
                Memory<L>::store_tile(out.weights, problem.dtype, group.rows, problem.codes, first, count,
                                      weights);
            };
            weights_row<L>(group.codes(), group.call, scorer, sums, group.codes().one_tile(), group.row,
                           group.code, group.keys, group.tile, load_tile, store_tile);
        }
    }

    static void backward(const Problem &problem, const Plan &plan, const BackwardArguments &args, Range range,
                         Scratch &scratch, const PartialGradients &out) {
        const FlushDenormals flush;
        auto *code_sums = static_cast<Real *>(scratch.codebook_sums);
        memset(code_sums, 0, sizeof(Real) * static_cast<size_t>(problem.codes) * width);
        auto *node_sums = static_cast<Real *>(scratch.node_sums);
        const int node_values = out.node_weights ? 2 * plan.codebooks[0].posterior_nodes : 0;
        for (int i = 0; i < node_values; ++i)
            node_sums[i] = 0;
        for (int64_t j = 0; j < problem.codebooks; ++j) {
            const Codebook codebook = plan.codebooks[j];
            double *gradient = out.codebook + j * problem.codes;
            int groups = 0;
            each_row_group(problem, plan, codebook, j, range, scratch, [&](const Group &group) {
                with_scorer<L>(problem, plan, codebook, group.rows, group.tile,
                               [&](auto scorer, const Reference<L> &z, auto load_tile) {
                                   *out.temperature += backward_group(group, args, scorer, z, load_tile,
                                                                      code_sums, node_sums);
                               });
                if (++groups % kGroupsBetweenFlushes == 0)
                    IO::move_lanes(code_sums, problem.codes, gradient);
            });
            IO::move_lanes(code_sums, problem.codes, gradient);
        }
        for (int i = 0; i < node_values; ++i)
            out.node_weights[i] = static_cast<double>(node_sums[i]);
    }

    // Returns the group's part of the temperature's gradient.
    template <class Scorer, class LoadTile>
    static double backward_group(const Group &group, const BackwardArguments &args, Scorer scorer,
                                 const Reference<L> &z, LoadTile load_tile, Real *code_sums,
                                 Real *node_sums) {
        const Problem &problem = group.problem;
        Tile<L> &tile = group.tile;
        auto up = IO::load_upstream(args, problem, group.rows, z.usable);
        const auto load_both = [&](int first, int count) {
            load_tile(first, count);
            if (args.grad_weights) {
                Memory<L>::load_tile(args.grad_weights, problem.dtype, group.rows, problem.codes, first,
                                     count, tile.grad_weights);
                mask_tile<L>(tile.grad_weights, count, z.usable, 0);
            }
        };
        const auto store_tile = [&](int first, int count) {
            if (args.grad_input)
                Memory<L>::store_tile(args.grad_input, problem.dtype, group.rows, problem.codes, first, count,
                                      tile.given);
        };
        const typename IO::CodebookSums codebook_sums{code_sums};
        const bool tabulated = Scorer::kBounded && group.tabulated();
        const auto place = tabulated ? group.table.locate(z.x) : typename PosteriorTable<L>::Place{};
        const auto run = [&](auto general, auto with_posterior) {
            const auto sums =
                IO::load_sums(args, problem, group.rows, group.call, scorer, with_posterior, place.inside);
            F weights_mean = L::set(0);
            if (general && up.weights)
                weights_mean =
                    weights_mean_row<L, with_posterior>(group.codes(), group.call, scorer, sums, up,
                                                        group.row, group.code, group.keys, tile, load_both);
            return backward_row<L, general, with_posterior>(
                group.codes(), group.call, scorer, sums, up, weights_mean,
                general && up.weights && group.codes().one_tile(), codebook_sums, group.row, group.code,
                group.keys, tile, load_both, store_tile);
        };
        const auto run_with = [&](auto with_posterior) {
            return args.grad_weights || args.temperature ? run(std::true_type(), with_posterior)
                                                         : run(std::false_type(), with_posterior);
        };

        RowGradient<L> gradient;
        if (tabulated) { // rows within the table take their KL's gradient from it
            const F kl = L::select(place.inside, up.kl, L::set(0)) * IO::real(kLn2);
            if (args.grad_kl)
                group.table.deposit(place, kl, node_sums);
            up.kl = L::select(place.inside, L::set(0), up.kl);
            gradient = L::all(place.inside) ? run_with(std::bool_constant<!Scorer::kBounded>())
                                            : run_with(std::true_type());
            gradient.input = L::fma(kl * IO::real(kLengthScale), group.table.slope(place), gradient.input);
        } else {
            gradient = run_with(std::true_type());
        }
        if (problem.hard)
            IO::add_one_hot(args, group.rows, up.quantized, code_sums);
        if (args.grad_input && !problem.is_logits)
            Memory<L>::store(args.grad_input, problem.dtype, group.rows, gradient.input);
        return args.temperature ? L::sum(gradient.temperature) : 0;
    }

    static void tabulate(const Codebook &codebook, int codes) {
        const FlushDenormals flush;
        PosteriorTable<L>(codebook).fill(codes);
    }

    static void posterior_gradient(const Codebook &codebook, int codes, const double *node_weights,
                                   Scratch &scratch, double *codebook_gradient) {
        const FlushDenormals flush;
        auto *code_sums = static_cast<Real *>(scratch.codebook_sums);
        memset(code_sums, 0, sizeof(Real) * static_cast<size_t>(codes) * width);
        PosteriorTable<L>(codebook).gradient(codes, node_weights, code_sums);
        for (int k = 0; k < codes; ++k)
            codebook_gradient[k] += kLengthScale * L::sum(L::load(code_sums + k * width));
    }

    static void nearest(const Problem &problem, const Plan &plan, const NearestOutputs &out, Range range) {
        const FlushDenormals flush;
        for (int64_t j = 0; j < problem.codebooks; ++j) {
            const Codebook codebook = plan.codebooks[j];
            const F infinity = IO::real(__builtin_inf()), zero = L::set(0);
            each_group<L>(range, problem.codebooks, j, 0, [&](const Rows &rows, uint64_t) {
                const F z = Memory<L>::load(problem.input, problem.dtype, rows);
                const M usable = L::less(L::max(z, zero - z), infinity);
                const F within = clamp<L>(L::select(usable, z, zero), IO::real(codebook.lowest),
                                          IO::real(codebook.highest));
                const auto *codes = static_cast<const Real *>(codebook.given);
                NearestCode<L> found(codes[0]);
                nearest_row<L>(CodeRange::all<L>(problem.codes), codes, L::numbers(plan.numbers), within,
                               found);
                IO::store_indices(out.indices, rows, found.index);
                IO::store_codes(problem, codebook, out.quantized, out.indices, rows, usable);
            });
        }
    }

    static void noise(uint64_t seed, uint64_t first_row, int64_t rows, int codes, void *out,
                      Scratch &scratch) {
        const FlushDenormals flush;
        const PhiloxKeys keys(seed);
        auto &tile = *static_cast<Tile<L> *>(scratch.tile);
        each_group<L>({0, rows}, 1, 0, first_row, [&](const Rows &group, uint64_t number) {
            const PhiloxRow<L> row(static_cast<uint32_t>(number), 1, keys);
            const auto *code = code_keys(scratch, codes, static_cast<uint32_t>(number >> 32), keys);
            for (int first = 0; first < codes; first += L::tile_codes) {
                const int count = std::min(codes - first, L::tile_codes);
                draw_noise<L>(row, code + first / 4, keys, count, tile.noise);
                for (int k = 0; k < count; ++k)
                    L::store(tile.noise + k * width, gumbel_of_log2<L>(L::load(tile.noise + k * width)));
                Memory<L>::store_tile(out, kReal, group, codes, first, count, tile.noise);
            }
        });
    }

    static void noise_from_words(const uint32_t *words, int64_t count, void *out) {
        const FlushDenormals flush;
        for (int64_t i = 0; i < count; i += width) {
            const int lanes = count - i < width ? static_cast<int>(count - i) : width;
            uint32_t padded[width] = {};
            memcpy(padded, words + i, sizeof(uint32_t) * static_cast<size_t>(lanes));
            Memory<L>::store(out, kReal, Rows{i, 1, lanes},
                             gumbel_of_log2<L>(typename L::Log2()(L::uniform(L::load_word(padded)))));
        }
    }

    static void words(uint64_t seed, uint64_t first_row, int64_t rows, int codes, uint32_t *out,
                      Scratch &scratch) {
        const PhiloxKeys keys(seed);
        each_group<L>({0, rows}, 1, 0, first_row, [&](const Rows &group, uint64_t number) {
            const PhiloxRow<L> row(static_cast<uint32_t>(number), 1, keys);
            const auto *code = code_keys(scratch, codes, static_cast<uint32_t>(number >> 32), keys);
            each_word<L>(row, code, keys, codes, [&](int k, typename L::U word) FQVAE_LAMBDA {
                uint32_t lanes[width];
                L::store_word(lanes, word);
                for (int i = 0; k < codes && i < group.count; ++i)
                    out[(group.first + i) * codes + k] = lanes[i];
            });
        });
    }

    // Draws every word and keeps none beyond the first-level cache: what no kernel with this noise can beat.
    // Returns the xor of the last ones, 16 codes of a group of rows.
    static uint32_t floor(uint64_t seed, uint64_t first_row, int64_t rows, int codes, Scratch &scratch) {
        const PhiloxKeys keys(seed);
        alignas(64) uint32_t last[16 * width] = {};
        each_group<L>({0, rows}, 1, 0, first_row, [&](const Rows &, uint64_t number) {
            const PhiloxRow<L> row(static_cast<uint32_t>(number), 1, keys);
            const auto *code = code_keys(scratch, codes, static_cast<uint32_t>(number >> 32), keys);
            each_word<L>(row, code, keys, codes, [&](int k, typename L::U word) FQVAE_LAMBDA {
                L::store_word(last + k % 16 * width, word);
                if (k % 16 == 15)
                    asm volatile("" ::: "memory"); // the stores so far count as used
            });
        });
        uint32_t sum = 0;
        for (uint32_t word : last)
            sum ^= word;
        return sum;
    }
};

} // namespace
} // namespace fqvae
