// The loops over rows, around the programs of csrc/row/: compiled once for each instruction set and compute
// type.
#pragma once

#include "denormals.h"
#include "drawn_loops.h"
#include "gumbel_loops.h"

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
    static void forward(const Call &call, const Plan &plan, const Outputs &out, Range range,
                        Scratch &scratch) {
        const FlushDenormals flush;
        for (int64_t j = 0; j < call.codebooks; ++j) {
            const Codebook codebook = plan.codebooks[j];
            each_row_group<L>(call, plan, codebook, j, range, scratch, [&](const Group<L> &group) {
                with_scorer<L>(call, plan, codebook, group.rows, group.tile,
                               [&](auto scorer, const Reference<L> &reference, auto load_tile) {
                                   if (call.estimator == Estimator::kGumbel)
                                       GumbelLoops<L>::forward_group(group, out, scorer, reference,
                                                                     load_tile);
                                   else
                                       DrawnLoops<L>::forward_group(group, out, scorer, reference, load_tile);
                               });
            });
        }
    }

    static void backward(const Call &call, const Plan &plan, const BackwardArguments &args, Range range,
                         Scratch &scratch, const PartialGradients &out) {
        const FlushDenormals flush;
        auto *code_sums = static_cast<Real *>(scratch.codebook_sums);
        auto *node_sums = out.node_weights ? static_cast<Real *>(scratch.node_sums) : nullptr;
        const int node_values = node_sums ? 2 * plan.codebooks[0].posterior_nodes : 0;
        memset(code_sums, 0, sizeof(Real) * static_cast<size_t>(call.codes) * width);
        for (int i = 0; i < node_values; ++i)
            node_sums[i] = 0;
        for (int64_t j = 0; j < call.codebooks; ++j) {
            const Codebook codebook = plan.codebooks[j];
            const auto flush_sums = [&] {
                if (out.codebook)
                    IO::move_lanes(code_sums, call.codes, out.codebook + j * call.codes);
            };
            int groups = 0;
            each_row_group<L>(call, plan, codebook, j, range, scratch, [&](const Group<L> &group) {
                with_scorer<L>(call, plan, codebook, group.rows, group.tile,
                               [&](auto scorer, const Reference<L> &reference, auto load_tile) {
                                   *out.temperature +=
                                       call.estimator == Estimator::kGumbel
                                           ? GumbelLoops<L>::backward_group(group, args, scorer, reference,
                                                                            load_tile, code_sums, node_sums)
                                           : DrawnLoops<L>::backward_group(group, args, scorer, reference,
                                                                           load_tile, code_sums, node_sums);
                               });
                if (++groups % kGroupsBetweenFlushes == 0)
                    flush_sums();
            });
            flush_sums();
        }
        for (int i = 0; i < node_values; ++i)
            out.node_weights[i] = static_cast<double>(node_sums[i]);
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

    static void nearest(const Call &call, const Plan &plan, const Outputs &out, Range range, Counts counts) {
        const FlushDenormals flush;
        for (int64_t j = 0; j < call.codebooks; ++j) {
            const Codebook codebook = plan.codebooks[j];
            each_group<L>(range, call.codebooks, j, 0, [&](const Rows &rows, uint64_t) {
                const Finite<L> z(Memory<L>::load(call.input, call.dtype, rows));
                const F within = clamp<L>(z.z, IO::real(codebook.lowest), IO::real(codebook.highest));
                const auto *codes = static_cast<const Real *>(codebook.given);
                NearestCode<L> found(codes[0]);
                nearest_row<L>(CodeRange::all<L>(call.codes), codes, L::numbers(plan.numbers), within, found);
                if (out.indices)
                    IO::store_indices(out.indices, rows, found.index);
                if (out.quantized)
                    Memory<L>::store(out.quantized, call.dtype, rows,
                                     codebook.finite ? value_or_nan<L>(z.usable, found.code)
                                                     : L::set(no_value<Real>()));
                if (counts.tables) // beside the next rows' arithmetic, which does not wait for it
                    counts.add<false>(out.indices, rows.first, rows.stride, rows.count);
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
