// What stands around the rows of a block in a backward pass: the block's part of the gradients that all rows
// share, and the gradients that reach a row.
#pragma once

#include "../row/finish.h"
#include "codebook_sums.h"

namespace fqvae {

constexpr int kRowsBetweenMoves = 32; // of a thread: float sums move on before their rounding counts

// What the rows of a block add to the gradients that all rows share.
template <class Real> struct Shares {
    CodebookSums<Real> codebook;
    double *part;       // where the codebook's sums go: (codes,), or null: nobody wants them
    double temperature; // of this thread

    __device__ __forceinline__ void move(int stage, int codes) {
        if (part)
            codebook.move_to(part + stage, codes);
    }
};

// Adds up a number of each thread in a fixed order.
__device__ __forceinline__ void sum_of_block(double x, double *out) {
    __shared__ double parts[kWarps];
    x = sum_of_lanes(x, 32);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0;
        for (int i = 0; i < kWarps; ++i)
            sum += parts[i];
        *out = sum;
    }
}

template <class Real>
__device__ __forceinline__ RowIncoming<DeviceLanes<Real>>
load_incoming(const BackwardArguments &args, int64_t row, bool usable, bool gives_code) {
    const Call &call = args.call;
    const auto &[quantized, kl, weights] = args.incoming;
    const auto value = [&](const void *p, int64_t i) { return p ? load_value<Real>(p, call.dtype, i) : 0; };
    return {value(quantized, row),
            kl ? static_cast<const Real *>(kl)[row] : 0,
            weights ? value(weights, row * call.codes + args.kept.indices[row]) : 0,
            weights != nullptr,
            usable,
            gives_code};
}

// Numbers k ... k + 3 of a row of (rows, codes); of rows that are not usable, zeros.
template <class Real>
__device__ __forceinline__ void load_usable(const void *p, const Block<Real> &block, int64_t row, int k,
                                            bool usable, Real *out) {
    block.load_four(p, row, k, static_cast<Real>(0), out);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        out[j] = usable ? out[j] : 0;
}

// The gradient of given logits k ... k + 3. Rows that are not usable may be computed with codes so far apart
// that their differences overflow.
template <class Real>
__device__ __forceinline__ void store_grad_logits(const BackwardArguments &args, const Block<Real> &block,
                                                  const RowOfThread<Real> &row, int k, bool usable,
                                                  Real *gradient) {
    if (!args.grad_input || !row.there)
        return;
#pragma unroll
    for (int j = 0; j < 4; ++j)
        gradient[j] = usable ? gradient[j] : 0;
    block.store_four(args.grad_input, row.row, k, gradient);
}

// Everything around the rows of a block: prepare() stages a resident codebook, each(shares, row) runs the
// backward pass of a row.
template <bool General, class Real, class Prepare, class EachRow>
__device__ __forceinline__ void backward_block(const BackwardArguments &args, Block<Real> &block, Real *sums,
                                               Prepare prepare, EachRow each) {
    const Call &call = args.call;
    const int64_t number = blockIdx.x * call.codebooks + block.codebook();
    Shares<Real> shares{CodebookSums<Real>(sums, block.lanes(), args.grad_codebook != nullptr),
                        args.grad_codebook ? args.grad_codebook + number * call.codes : nullptr, 0};
    if (shares.part) {
        shares.codebook.clear(args.launch.staged);
        for (int k = threadIdx.x; k < call.codes; k += kThreads)
            shares.part[k] = 0;
    }
    prepare();
    __syncthreads();
    int rows = 0;
    block.each_row([&](const RowOfThread<Real> &row) {
        each(shares, row);
        if (block.resident() && ++rows % kRowsBetweenMoves == 0) {
            __syncthreads();
            shares.move(0, call.codes);
            __syncthreads();
        }
    });
    if (block.resident()) {
        __syncthreads();
        shares.move(0, call.codes);
    }
    if (General && args.grad_temperature)
        sum_of_block(shares.temperature, args.grad_temperature + number);
}

} // namespace fqvae
