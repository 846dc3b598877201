// What the dispatcher and the kernels of each instruction set share, in plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../call.h"
#include "../row/bounds.h"
#include "counts.h"

namespace fqvae {

// What a backward pass gets besides the call.
struct BackwardArguments {
    Kept kept;
    Incoming incoming;
    void *grad_input;         // like the input, or null
    void *grad_codebook;      // (codebooks, codes) in the compute type, or null
    double *grad_temperature; // one number, or null
};

// A codebook as the kernels use it; see plan.h.
struct Codebook {
    bool finite;        // true: no code is NaN or infinite
    const void *given;  // as it came; zeros if it is not finite
    const void *scaled; // centred and scaled, for the bounded scorer
    double lowest, highest;
    Bounds<double> bounds;
    void *posterior; // table of posterior_nodes nodes (posterior_table.h), or null
    int posterior_nodes;
    double posterior_first; // where it begins, centred and scaled

    template <class Real> Bounds<Real> bounds_in() const {
        return {bounds.bounded, static_cast<Real>(bounds.reach), static_cast<Real>(bounds.shift),
                static_cast<Real>(bounds.shift_below), static_cast<Real>(bounds.centre)};
    }
};
constexpr int kPosteriorColumns = 4;

struct Plan {
    const Codebook *codebooks;
    const uint32_t *numbers; // 0 ... codes
};

// Memory of one worker, kept from chunk to chunk.
struct Scratch {
    PhiloxCode *code_keys;
    uint32_t keys_for; // high word of the row numbers for which code_keys were computed
    bool keys_ready = false;
    void *tile;          // Tile of row/score.h
    void *codebook_sums; // (codes, width)
    void *node_sums;     // (posterior_nodes, 2), or null without a table or a gradient of the codebook
};

// Rows are counted in positions: position p holds rows p * codebooks ... p * codebooks + codebooks - 1.
struct Range {
    int64_t begin, end;
};

// What one range of rows adds to the gradients that all rows share; zero at first.
struct PartialGradients {
    double *codebook;     // (codebooks, codes), or null if nobody wants it
    double *node_weights; // (posterior_nodes, 2), or null without a table or without `codebook`
    double *temperature;
};

// The kernels of one instruction set and compute type.
struct Kernels {
    int width;
    size_t tile_bytes;
    void (*forward)(const Call &, const Plan &, const Outputs &, Range, Scratch &);
    void (*backward)(const Call &, const Plan &, const BackwardArguments &, Range, Scratch &,
                     const PartialGradients &);
    void (*tabulate)(const Codebook &, int codes);
    // Adds what the KL's gradients have left at the nodes of the table to the codebook's gradient.
    void (*posterior_gradient)(const Codebook &, int codes, const double *node_weights, Scratch &,
                               double *codebook_gradient);
    void (*nearest)(const Call &, const Plan &, const Outputs &, Range, Counts);
    void (*noise)(uint64_t seed, uint64_t first_row, int64_t rows, int codes, void *out, Scratch &);
    void (*noise_from_words)(const uint32_t *words, int64_t count, void *out);
    void (*words)(uint64_t seed, uint64_t first_row, int64_t rows, int codes, uint32_t *out, Scratch &);
    uint32_t (*floor)(uint64_t seed, uint64_t first_row, int64_t rows, int codes, Scratch &);
};

Kernels portable_kernels();
Kernels scalar_kernels();
Kernels device_kernels();
Kernels portable_double_kernels();
Kernels avx2_kernels();
Kernels avx512_kernels();

} // namespace fqvae
