// The lanes of a GPU thread: one row, in `float` with the device's own log2 and exp2, or in `double`. nvcc
// compiles them for CUDA's kernels, a C++ compiler for the instruction set "device"
// (cpu/kernels_portable.cpp), which the tests run.
#pragma once

#include "approximate.h"
#include "scalar_lanes.h"

namespace fqvae {

template <class Tiles> struct DeviceFloatLanes : ScalarLanes<float, Tiles> {
    // log2 of a number u below 1 that is drawn from the noise. -log2 u decides the winners as u goes to 1,
    // and must keep its relative accuracy there, which the device's log2 does not: from 1 - kWindow on, a
    // polynomial takes over (minimax for the relative error, 4.9e-7). The noise g may be off by
    // 2e-6 max(1, |g|). A window of 3/64 and one coefficient less would just meet it (0.73 of it),
    // but with an error of 3.5e-6 in costs that a temperature divides; here it is 1.2e-6 at most (0.46 of
    // it).
    struct Log2 {
        static constexpr float kWindow = 1.0f / 8;
        FQVAE_INLINE float operator()(float u) const {
            const float f = u - 1.0f; // exact for u >= 1/2
            float p = fmaf(-0x1.c791e2p-2f, f, 0x1.e55cdap-2f);
            p = fmaf(p, f, -0x1.716ba8p-1f);
            p = fmaf(p, f, 0x1.71546ap+0f) * f;
            return f > -kWindow ? p : approximate_log2(u);
        }
    };
    struct AddLog2 {
        FQVAE_INLINE float operator()(float a, float b, float x) const {
            return fmaf(a, b, approximate_log2(fabsf(x)));
        }
    };
    struct Exp2 {
        FQVAE_INLINE float operator()(float x) const { return approximate_exp2(x); }
        template <int Count>
        FQVAE_INLINE void together(const float (&x)[Count], float (&y)[Count]) const {
            FQVAE_UNROLL
            for (int i = 0; i < Count; ++i)
                y[i] = (*this)(x[i]);
        }
    };
    FQVAE_INLINE static float exp2(float x) { return approximate_exp2(x); }

    FQVAE_INLINE static float fma(float a, float b, float c) { return fmaf(a, b, c); }
    FQVAE_INLINE static float magnitude(float x) { return fabsf(x); }
    FQVAE_INLINE static float max(float a, float b) { return fmaxf(a, b); }
    FQVAE_INLINE static float min(float a, float b) { return fminf(a, b); }

    // nvcc does not see that a 64-bit product of two 32-bit numbers is one instruction, so it is named.
    FQVAE_INLINE static uint64_t multiply(uint64_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
        uint64_t product;
        asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(static_cast<uint32_t>(a)), "r"(b));
        return product;
#else
        return (a & 0xffffffffu) * b;
#endif
    }

    // (word >> 9 | bits of 1.0f) as a float in [1, 2), less the largest float below 1: exact. On the device
    // one funnel shift makes the bits.
    FQVAE_INLINE static float uniform(uint32_t word) {
#if defined(__CUDA_ARCH__)
        return __uint_as_float(__funnelshift_r(word, 0x7fu, 9)) - 0x1.fffffep-1f;
#else
        const uint32_t bits = (word >> 9) | 0x3f800000u;
        float x;
        memcpy(&x, &bits, 4);
        return x - 0x1.fffffep-1f;
#endif
    }
};

// Tiles in memory, as small as those in registers: for a CPU.
struct SmallTilesInMemory : TilesInMemory {
    static constexpr int tile_codes = 4;
    static constexpr bool small_tiles = true;
    static constexpr int tile_alignment = 16;
};

template <class Real> struct DeviceLanesFor;
template <> struct DeviceLanesFor<float> {
    using Lanes = DeviceFloatLanes<TilesInRegisters>;
};
template <> struct DeviceLanesFor<double> {
    using Lanes = ScalarLanes<double, TilesInRegisters>;
};
template <class Real> using DeviceLanes = typename DeviceLanesFor<Real>::Lanes;

} // namespace fqvae
