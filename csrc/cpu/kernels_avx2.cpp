// Compiled with -mavx2 -mfma.
#define FQVAE_LANES 8

#include "kernels.h"
#include "lanes_vector.h"

namespace fqvae {

Kernels avx2_kernels() { return Loops<VectorLanes>::table(); }

} // namespace fqvae
