// The backward pass where nothing but z wants a gradient: two products for each row.
#include "values.h"

namespace fqvae {
namespace {

template <class Real> __device__ __forceinline__ void backward_slopes(const SlopesArguments &args) {
    const Real *quantized = static_cast<const Real *>(args.slopes), *kl = quantized + args.rows;
    for (int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; row < args.rows;
         row += static_cast<int64_t>(gridDim.x) * kThreads) {
        Real gradient = 0;
        const Real slope = quantized[row];
        if (slope == slope) { // NaN: the row is not usable, and passes nothing on
            if (args.grad_quantized)
                gradient = slope * load_value<Real>(args.grad_quantized, args.dtype, row);
            if (args.grad_kl)
                gradient = fma(kl[row], static_cast<const Real *>(args.grad_kl)[row], gradient);
        }
        store_value(args.grad_input, args.dtype, row, gradient);
    }
}

} // namespace

extern "C" {

__global__ void __launch_bounds__(kThreads)
    backward_slopes_float(const __grid_constant__ SlopesArguments args) {
    backward_slopes<float>(args);
}
__global__ void __launch_bounds__(kThreads)
    backward_slopes_double(const __grid_constant__ SlopesArguments args) {
    backward_slopes<double>(args);
}

} // extern "C"

} // namespace fqvae
