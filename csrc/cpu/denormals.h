// While a FlushDenormals lives, this thread treats denormal numbers as zero. No result needs them, and some
// processors compute with them ten times as slowly. Only x86 and 64-bit ARM are known to it; on others it
// does nothing.
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
#else
  public:
    FlushDenormals() {}
#endif
    FlushDenormals(const FlushDenormals &) = delete;
    FlushDenormals &operator=(const FlushDenormals &) = delete;
};

} // namespace
} // namespace fqvae
