// The second stage of gradients that all rows share: adds up what the blocks have left, in a fixed order.
#include "block.h"

namespace fqvae {

// A block adds up 32 neighbouring numbers: each warp takes every kWarps-th part, and the warps' sums are
// added one after another.
extern "C" __global__ void __launch_bounds__(kThreads) reduce(const __grid_constant__ ReduceArguments args) {
    __shared__ double sums[kWarps][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * 32 + lane;
    double sum = 0;
    if (at < args.length)
        for (int64_t j = warp; j < args.count; j += kWarps)
            sum += args.parts[j * args.length + at];
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || at >= args.length)
        return;
    for (int i = 1; i < kWarps; ++i)
        sum += sums[i][lane];
    if (args.dtype == kFloat64)
        static_cast<double *>(args.out)[at] = sum;
    else
        static_cast<float *>(args.out)[at] = static_cast<float>(sum);
}

} // namespace fqvae
