#define FQVAE_LANES 4

#include "../row/device_lanes.h"
#include "../row/scalar_lanes.h"
#include "kernels.h"
#include "lanes_vector.h"

namespace fqvae {

Kernels portable_kernels() { return Loops<VectorLanes>::table(); }

// One row at a time: for tests, and to measure the lanes against.
Kernels scalar_kernels() { return Loops<ScalarLanes<float>>::table(); }

// One row at a time with a GPU's log2 and exp2, the arithmetic of a CUDA thread: for tests.
Kernels device_kernels() { return Loops<DeviceFloatLanes<SmallTilesInMemory>>::table(); }

// float64 is for checking gradients and for people who need it, not for speed: one row at a time, with libm's
// functions.
Kernels portable_double_kernels() { return Loops<ScalarLanes<double>>::table(); }

} // namespace fqvae
