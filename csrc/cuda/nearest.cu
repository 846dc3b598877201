// The nearest code of each row, and the noise by itself.
#include "scorers.h"

namespace fqvae {
namespace {

template <class Real> __device__ __forceinline__ void nearest_block(const NearestArguments &args) {
    extern __shared__ __align__(16) unsigned char memory[];
    const Call &call = args.call;
    Block<Real> block(call, args.launch, memory);
    block.survey(false);
    if (block.resident()) {
        block.stage(0);
        __syncthreads();
    }
    block.each_row([&](const RowOfThread<Real> &row) {
        const Finite<DeviceLanes<Real>> finite(load_value<Real>(call.input, call.dtype, row.row));
        const auto nearest = nearest_code(block, row.lane, finite.z);
        if (row.there && row.lane == 0) {
            const bool usable = finite.usable && !block.spoilt;
            if (args.quantized)
                store_value(args.quantized, call.dtype, row.row,
                            value_or_nan<DeviceLanes<Real>>(usable, nearest.code));
            if (args.indices)
                args.indices[row.row] = nearest.index;
        }
    });
}

// A thread draws the noise of four codes of a row.
template <class Real> __device__ __forceinline__ void noise_block(const NoiseArguments &args) {
    using L = DeviceLanes<Real>;
    const PhiloxKeys keys(args.seed_at ? static_cast<uint64_t>(*args.seed_at) : args.seed);
    const int64_t blocks = (static_cast<int64_t>(args.codes) + 3) / 4, all = args.rows * blocks;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < all;
         i += static_cast<int64_t>(gridDim.x) * kThreads) {
        const int64_t row = i / blocks, block = i % blocks;
        const uint64_t number = args.row_offset + static_cast<uint64_t>(row);
        const PhiloxCode code(static_cast<uint32_t>(block), static_cast<uint32_t>(number >> 32), keys);
        Real noise[4];
        draw_noise<L>(PhiloxRow<L>(static_cast<uint32_t>(number), 0, keys), &code, keys, 4, noise);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (4 * block + j < args.codes)
                static_cast<Real *>(args.out)[row * args.codes + 4 * block + j] = gumbel_of_log2<L>(noise[j]);
    }
}

// The noise of given words, as the kernels compute it: for tests.
__device__ __forceinline__ float noise_of_word(uint32_t word) {
    using L = DeviceLanes<float>;
    return gumbel_of_log2<L>(L::Log2()(L::uniform(word)));
}

// Left to itself, nvcc gives these kernels registers that they can do without.
constexpr int kNearestFloatAtOnce = 8, kNearestDoubleAtOnce = 7;

} // namespace

extern "C" {

__global__ void __launch_bounds__(kThreads, kNearestFloatAtOnce)
    nearest_float(const __grid_constant__ NearestArguments args) {
    nearest_block<float>(args);
}
__global__ void __launch_bounds__(kThreads, kNearestDoubleAtOnce)
    nearest_double(const __grid_constant__ NearestArguments args) {
    nearest_block<double>(args);
}
__global__ void __launch_bounds__(kThreads) noise_float(const __grid_constant__ NoiseArguments args) {
    noise_block<float>(args);
}
__global__ void __launch_bounds__(kThreads) noise_double(const __grid_constant__ NoiseArguments args) {
    noise_block<double>(args);
}
// out[i] = the noise of the i-th 23-bit number
__global__ void __launch_bounds__(kThreads) noise_values(float *out, int first, int count) {
    const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
    if (i < count)
        out[i] = noise_of_word(static_cast<uint32_t>(first + i) << 9);
}

} // extern "C"

} // namespace fqvae
