// Numbers in device memory, in any of the storage types, to the compute type and back.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "arguments.h"

namespace fqvae {

template <class Real> __device__ __forceinline__ Real load_value(const void *p, DType dtype, int64_t i) {
    if constexpr (sizeof(Real) == 8)
        return static_cast<const double *>(p)[i];
    else if (dtype == DType::kFloat16)
        return __half2float(static_cast<const __half *>(p)[i]);
    else if (dtype == DType::kBFloat16)
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]);
    else
        return static_cast<const float *>(p)[i];
}

template <class Real> __device__ __forceinline__ void store_value(void *p, DType dtype, int64_t i, Real x) {
    if constexpr (sizeof(Real) == 8)
        static_cast<double *>(p)[i] = x;
    else if (dtype == DType::kFloat16)
        static_cast<__half *>(p)[i] = __float2half_rn(x);
    else if (dtype == DType::kBFloat16)
        static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn(x);
    else
        static_cast<float *>(p)[i] = x;
}

// A 0-d tensor of any floating type.
template <class Real> __device__ __forceinline__ Real load_scalar(const void *p, DType dtype) {
    return dtype == DType::kFloat64 ? static_cast<Real>(*static_cast<const double *>(p))
                                    : static_cast<Real>(load_value<float>(p, dtype, 0));
}

// Codes k ... k + 3 of a row of (rows, codes); those from `codes` on count as `beyond`. vectors: see Launch.
template <class Real>
__device__ __forceinline__ void load_four(const void *p, const Call &call, bool vectors, int64_t row, int k,
                                          Real beyond, Real *out) {
    const int64_t at = row * call.codes + k;
    if (sizeof(Real) == 4 && vectors && call.dtype == DType::kFloat32) {
        const float4 four = *reinterpret_cast<const float4 *>(static_cast<const float *>(p) + at);
        out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
        out[j] = k + j < call.codes ? load_value<Real>(p, call.dtype, at + j) : beyond;
}

template <class Real>
__device__ __forceinline__ void store_four(void *p, const Call &call, bool vectors, int64_t row, int k,
                                           const Real *from) {
    const int64_t at = row * call.codes + k;
    if (sizeof(Real) == 4 && vectors && call.dtype == DType::kFloat32) {
        *reinterpret_cast<float4 *>(static_cast<float *>(p) + at) =
            make_float4(from[0], from[1], from[2], from[3]);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (k + j < call.codes)
            store_value(p, call.dtype, at + j, from[j]);
}

} // namespace fqvae
