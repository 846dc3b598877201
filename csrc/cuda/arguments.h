// What each kernel is told, in plain data passed by value: fqvae_kernels/backends/_cuda/arguments.py packs
// the same fields in the same order.
#pragma once

#include <cstdint>

#include "../call.h"

namespace fqvae {

constexpr int kThreads = 128; // a block

// How one launch goes over rows of the call.
struct Launch {
    int64_t row_begin, row_end; // its rows, the high words of whose numbers are the same
    int32_t staged;   // codes that a block keeps in shared memory at a time: a multiple of 4 lanes, or all
    int32_t lanes;    // threads that share a row: a power of 2, up to 32
    int32_t as_given; // where in shared memory the codes as given begin: bytes
    int32_t vectors;  // true: four numbers of a (rows, codes) tensor may be loaded together
};

struct ForwardArguments {
    Call call;
    Launch launch;
    const void *table; // what posterior_float has left, for the kernels that read it
    Outputs out; // forward_z_slopes leaves as stats (2, rows): the slopes of quantized (NaN: no gradient)
                 // and of kl
};

struct PosteriorArguments {
    Call call;
    Launch launch;
    void *table; // (codebooks, kMostTableNodes) of TableNode
};

// Each block leaves its share of the gradients that all rows contribute to; `reduce` adds them up in a fixed
// order.
struct BackwardArguments {
    Call call;
    Launch launch;
    Kept kept; // weights only where the temperature wants no gradient
    Incoming incoming;
    void *grad_input;         // like the input, or null
    double *grad_codebook;    // (blocks, codebooks, codes), or null
    double *grad_temperature; // (blocks, codebooks), or null
};

// The backward pass of forward_z_slopes.
struct SlopesArguments {
    const void *slopes;         // (2, rows) in the compute type
    const void *grad_quantized; // (rows,) in `dtype`, or null
    const void *grad_kl;        // (rows,) in the compute type, or null
    void *grad_input;           // (rows,) in `dtype`
    int64_t rows;
    DType dtype;
    int32_t unused;
};

struct NearestArguments {
    Call call;
    Launch launch;
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
    DType dtype;
    int32_t unused;
};

// As many jobs as the grid is high.
struct ReduceArguments {
    ReduceJob jobs[2];
};

} // namespace fqvae
