// Small CUDA kernels whose results are known, for test_ptx_cuda.py.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void block_sum(const float *x, double *sums, int n) {
    __shared__ double of_warp[32];
    double sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += x[i];
    for (int step = 16; step; step /= 2)
        sum += __shfl_down_sync(~0u, sum, step);
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : 0;
        for (int step = 16; step; step /= 2)
            sum += __shfl_down_sync(~0u, sum, step);
        if (threadIdx.x == 0)
            sums[blockIdx.x] = sum;
    }
}

// Sums of neighbouring powers of two, in place: a barrier between each step's reads and writes.
extern "C" __global__ void prefix_sum(int *x, int n) {
    extern __shared__ int values[];
    const int i = threadIdx.x;
    values[i] = i < n ? x[i] : 0;
    __syncthreads();
    for (int step = 1; step < blockDim.x; step *= 2) {
        const int other = i >= step ? values[i - step] : 0;
        __syncthreads();
        values[i] += other;
        __syncthreads();
    }
    if (i < n)
        x[i] = values[i];
}

struct Affine {
    const float *in;
    float *out;
    float scale, offset;
    int n;
};
extern "C" __global__ void affine(const Affine a) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < a.n)
        a.out[i] = fmaf(a.in[i], a.scale, a.offset);
}

extern "C" __global__ void functions_f32(const float *x, float *out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    const float v = x[i];
    const float results[] = {expf(v), logf(v),  exp2f(v), log2f(v),       log1pf(v), expm1f(v), sqrtf(v),
                             1 / v,   tanhf(v), sinf(v),  powf(v, 1.75f), erff(v),   rsqrtf(v)};
    for (int k = 0; k < 13; ++k)
        out[k * n + i] = results[k];
}

extern "C" __global__ void functions_f64(const double *x, double *out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    const double v = x[i];
    const double results[] = {exp(v), log(v),  exp2(v), log2(v),      log1p(v), expm1(v), sqrt(v),
                              1 / v,  tanh(v), sin(v),  pow(v, 1.75), erf(v),   rsqrt(v)};
    for (int k = 0; k < 13; ++k)
        out[k * n + i] = results[k];
}

__constant__ float weights[5] = {1, -2, 3, -4, 5};
__device__ __noinline__ float chosen(int which, float v) {
    switch (which) {
    case 0:
        return v + 1;
    case 1:
        return v * v;
    case 2:
        return -v;
    case 3:
        return v / 3;
    case 4:
        return v - 7;
    case 5:
        return fabsf(v) * weights[which - 4];
    default:
        return 0;
    }
}
// A local array with an index that is only known at run time, a function that is called, a table of
// constants.
extern "C" __global__ void local_array(const int *which, const float *x, float *out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float values[8];
    for (int k = 0; k < 8; ++k)
        values[(k * 3 + which[i]) % 8] = chosen(k, x[i]);
    out[i] = values[which[i]] + weights[which[i] % 5];
}

extern "C" __global__ void histogram(const unsigned char *x, int *counts, int n) {
    __shared__ int of_block[256];
    for (int k = threadIdx.x; k < 256; k += blockDim.x)
        of_block[k] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&of_block[x[i]], 1);
    __syncthreads();
    for (int k = threadIdx.x; k < 256; k += blockDim.x)
        if (of_block[k])
            atomicAdd(&counts[k], of_block[k]);
}

extern "C" __global__ void sixteen_bits(const __half *h, const __nv_bfloat16 *b, __half *h_out,
                                        __nv_bfloat16 *b_out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        h_out[i] = __hfma(h[i], h[i], __float2half(0.5f)) - h[i] / __float2half(3.0f);
        b_out[i] = __float2bfloat16(__bfloat162float(b[i]) * 1.25f) + b[i];
    }
}

extern "C" __global__ void long_products(const unsigned long long *a, const unsigned long long *b,
                                         unsigned long long *high, long long *quotients, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        high[i] = __umul64hi(a[i], b[i]) + __brevll(a[i]) + __popcll(b[i]) + __clzll(a[i]);
        quotients[i] = (long long)a[i] / (long long)(b[i] | 1) + (long long)a[i] % 1000003;
    }
}
