// Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi2 -mfma.
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "kernels.h"
#include "lanes_avx512.h"

namespace fqvae {

Kernels avx512_kernels() { return Loops<Avx512Lanes>::table(); }

} // namespace fqvae
