// The functions that a GPU computes approximately: all that differs between the arithmetic of a CUDA thread
// and that of the same program on a CPU.
//
// Errors as documented in the PTX ISA for lg2.approx.ftz.f32 (2^-22 absolute for arguments in (0.5, 2), else
// 2^-22 relative) and ex2.approx.ftz.f32 (2 ulp, as the CUDA programming guide gives for exp2f; exact at 0).
// On a CPU both are computed nearly exactly, and moved by those bounds if `device_error` says so: the tests
// show that the results keep their tolerances wherever in the bounds a device's values lie.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "platform.h"

namespace fqvae {

enum class DeviceError : int { kNone, kUp, kDown, kScattered };
inline DeviceError device_error = DeviceError::kNone;

#if defined(__CUDA_ARCH__)

__device__ __forceinline__ float approximate_log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float approximate_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else

// -1, 0 or 1, scattered by the bits of the argument.
inline int error_sign(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    switch (device_error) {
    case DeviceError::kUp:
        return 1;
    case DeviceError::kDown:
        return -1;
    case DeviceError::kScattered:
        return (bits * 0x9E3779B9u) >> 31 ? 1 : -1;
    default:
        return 0;
    }
}
inline bool denormal(float x) { return x != 0 && std::fabs(x) < 0x1p-126f; }

FQVAE_INLINE float approximate_log2(float x) {
    const double exact = std::log2(denormal(x) ? 0.0 : static_cast<double>(x));
    if (!std::isfinite(exact))
        return static_cast<float>(exact);
    const double error = x > 0.5f && x < 2.0f ? 0x1p-22 : 0x1p-22 * std::fabs(exact);
    return static_cast<float>(exact + error_sign(x) * error);
}
FQVAE_INLINE float approximate_exp2(float x) {
    float y = static_cast<float>(std::exp2(denormal(x) ? 0.0 : static_cast<double>(x)));
    if (x != 0 && std::isfinite(y) && y != 0) {
        uint32_t bits;
        memcpy(&bits, &y, 4);
        bits += static_cast<uint32_t>(2 * error_sign(x));
        memcpy(&y, &bits, 4);
    }
    return denormal(y) ? 0.0f : y;
}

#endif

} // namespace fqvae
