// The one description of a pass, in plain data: the CPU's kernels get it by address, CUDA's by value.
// fqvae_kernels/backends/cpu.py and fqvae_kernels/backends/_cuda/arguments.py pack the same fields in the
// same order.
#pragma once

#include <cstdint>

namespace fqvae {

// As fqvae_kernels/_tensors.py numbers them.
enum class DType : int32_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

// How an index is drawn, and how its gradient is formed: as ESTIMATORS in
// fqvae_kernels/_call.py numbers them.
enum class Estimator : int32_t { kGumbel, kStraightThrough, kReinMax, kNearest };

struct Call {
    const void *input;      // z (rows,) or logits (rows, codes), in `dtype`
    const void *codebook;   // (codebooks, codes) in the compute type: double for float64 input, else float
    const int64_t *seed_at; // in a GPU's memory, or null: `seed` holds it
    const void *temperature_at; // in a GPU's memory, in `temperature_dtype`, or null: `temperature` holds it
    uint64_t seed, row_offset;
    double temperature;
    double log2_codes, ln_codes; // logarithms of `codes`
    int64_t rows, codebooks;     // row n uses codebook n mod codebooks
    int32_t codes;
    DType dtype, temperature_dtype;
    Estimator estimator;
    int32_t hard;      // of kGumbel: quantized is a code; of the others it always is
    int32_t is_logits; // the input is logits
};

// What a forward pass leaves; null for what nobody wants.
struct Outputs {
    void *quantized;  // (rows,) in `dtype`
    int64_t *indices; // (rows,)
    void *kl;         // (rows,) in the compute type
    void *weights;    // (rows, codes) in `dtype`
    void *stats;      // (kStats, rows) in the compute type, for the backward pass; see row/stats.h
};

// What is kept of a forward pass for the backward pass.
struct Kept {
    const int64_t *indices;
    const void *stats;
    const void *weights; // (rows, codes) in the compute type: soft weights that were returned; or null
};

// The gradients that reach a backward pass; null where nothing comes.
struct Incoming {
    const void *quantized; // (rows,) in `dtype`
    const void *kl;        // (rows,) in the compute type
    const void *weights;   // (rows, codes) in `dtype`
};

} // namespace fqvae
