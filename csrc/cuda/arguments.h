// What a kernel is told, in plain data passed by value: fqvae_kernels/backends/_cuda/arguments.py packs the
// same fields in the same order.
#pragma once

#include <cstdint>

namespace fqvae {

// As in cpu/problem.h.
constexpr int kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3;

constexpr int kThreads = 128; // a block

struct Call {
    const void *input;          // z (rows,) or logits (rows, codes), in `dtype`
    const void *codebook;       // (codebooks, codes) in the compute type
    const int64_t *seed_at;     // in device memory, or null: `seed`
    const void *temperature_at; // in device memory, in `temperature_dtype`, or null: `temperature`
    uint64_t seed, row_offset;  //
    double temperature, log2_codes;
    int64_t rows;               // of the whole call
    int64_t row_begin, row_end; // of this launch: the high words of their numbers are the same
    int64_t codebooks;          // row n uses codebook n mod codebooks, which is blockIdx.y
    int32_t codes;
    int32_t staged; // codes that a block keeps in shared memory at a time: a multiple of 4 lanes, or all
    int32_t lanes;  // threads that share a row: a power of 2, up to 32
    int32_t dtype, temperature_dtype;
    int32_t hard;
    int32_t vectors; // may four numbers of a (rows, codes) tensor be loaded together?
    int32_t is_logits;
};

struct ForwardArguments {
    Call call;
    const void *table; // what posterior_float has left, for the kernels that read it
    void *quantized;   // (rows,) in `dtype`
    int64_t *indices;  // (rows,)
    void *kl;          // (rows,) in the compute type
    void *sums;        // (kRowSums, rows) in the compute type for the backward pass, or null; of
                       // forward_z_slopes (2, rows): the slopes of quantized (NaN: no gradient) and of kl
    void *weights;     // (rows, codes) in `dtype`, or null
};

struct PosteriorArguments {
    Call call;
    void *table; // (codebooks, kMostTableNodes) of TableNode
};

// Each block leaves its share of the gradients that all rows contribute to; `reduce` adds them up in a fixed
// order.
struct BackwardArguments {
    Call call;
    const int64_t *indices;
    const void *sums;
    const void *grad_quantized; // (rows,) in `dtype`, or null
    const void *grad_kl;        // (rows,) in the compute type, or null
    const void *grad_weights;   // (rows, codes) in `dtype`, or null
    void *grad_input;           // like the input, or null
    double *grad_codebook;      // (blocks, codebooks, codes), or null
    double *grad_temperature;   // (blocks, codebooks), or null
};

// The backward pass of forward_z_slopes.
struct SlopesArguments {
    const void *slopes;         // (2, rows) in the compute type
    const void *grad_quantized; // (rows,) in `dtype`, or null
    const void *grad_kl;        // (rows,) in the compute type, or null
    void *grad_input;           // (rows,) in `dtype`
    int64_t rows;
    int32_t dtype, unused;
};

struct NearestArguments {
    Call call;
    void *quantized;
    int64_t *indices;
};

struct NoiseArguments {
    const int64_t *seed_at;
    uint64_t seed, row_offset;
    int64_t rows;
    int32_t codes, unused;
    void *out; // (rows, codes) in the compute type
};

// out[i] = sum over j of parts[j, i]
struct ReduceJob {
    const double *parts; // (count, length)
    int64_t count, length;
    void *out; // (length,) in `dtype`
    int32_t dtype, unused;
};

// As many jobs as the grid is high.
struct ReduceArguments {
    ReduceJob jobs[2];
};

} // namespace fqvae
