// The second stage of gradients that all rows share: adds up what the blocks have left, in a fixed order.
#include "block.h"

namespace fqvae {

// A block adds up kColumns neighbouring numbers, as many as one access to memory brings along. kSlots threads
// share a column: each adds up every kSlots-th part, kAtOnce of which it loads before it needs the first.
// Then the slots' sums are added up in pairs.
constexpr int kColumns = 4, kSlots = kThreads / kColumns, kAtOnce = 8;

extern "C" __global__ void __launch_bounds__(kThreads) reduce(const __grid_constant__ ReduceArguments args) {
    __shared__ double sums[kWarps][kColumns];
    const ReduceJob &job = args.jobs[blockIdx.y];
    const int slot = static_cast<int>(threadIdx.x) / kColumns,
              column = static_cast<int>(threadIdx.x) % kColumns;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * kColumns + column;
    double sum = 0;
    if (at < job.length)
        for (int64_t first = slot; first < job.count; first += kSlots * kAtOnce) {
            double parts[kAtOnce];
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                const int64_t j = first + kSlots * i;
                parts[i] = j < job.count ? job.parts[j * job.length + at] : 0;
            }
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i)
                sum += parts[i];
        }
#pragma unroll
    for (int distance = kColumns; distance < 32; distance *= 2)
        sum += __shfl_xor_sync(kWholeWarp, sum, distance);
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x % 32 < kColumns)
        sums[warp][column] = sum;
    __syncthreads();
    if (slot > 0 || at >= job.length)
        return;
    for (int i = 1; i < kWarps; ++i)
        sum += sums[i][column];
    if (job.dtype == DType::kFloat64)
        static_cast<double *>(job.out)[at] = sum;
    else
        static_cast<float *>(job.out)[at] = static_cast<float>(sum);
}

} // namespace fqvae
