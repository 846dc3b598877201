// While it lives, denormal numbers count as zero on this thread: they would cost a factor of ten, and no
// result needs them.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace fqvae {
namespace {

class FlushDenormals {
  public:
#if defined(__SSE2__)
    FlushDenormals() : state_(_mm_getcsr()) {
        _mm_setcsr(state_ | 0x8040u);
    } // flush to zero, denormals are zero
    ~FlushDenormals() { _mm_setcsr(state_); }

  private:
    unsigned state_;
#elif defined(__aarch64__)
    FlushDenormals() {
        asm volatile("mrs %0, fpcr" : "=r"(state_));
        asm volatile("msr fpcr, %0" ::"r"(state_ | (uint64_t(1) << 24)));
    }
    ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(state_)); }

  private:
    uint64_t state_;
#endif
    FlushDenormals(const FlushDenormals &) = delete;
    FlushDenormals &operator=(const FlushDenormals &) = delete;
};

} // namespace
} // namespace fqvae
