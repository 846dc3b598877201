// What differs between the compilers that see a row's program: the CPU's, and nvcc.
#pragma once

#if defined(__CUDACC__)
#define FQVAE_INLINE __host__ __device__ __forceinline__
#define FQVAE_LAMBDA
#define FQVAE_UNROLL _Pragma("unroll")
#define FQVAE_UNROLL_ON_DEVICE _Pragma("unroll 4")
#else
#define FQVAE_INLINE inline __attribute__((always_inline))
#define FQVAE_LAMBDA __attribute__((always_inline))
#define FQVAE_UNROLL _Pragma("GCC unroll 16")
#define FQVAE_UNROLL_ON_DEVICE
#endif
