// The codebook's gradient of a block's rows: sums in shared memory, one for each code and each of the rows
// that the block works on at a time, so that no two threads meet; from time to time they are added up, in a
// fixed order, and moved on to the block's part in device memory.
#pragma once

#include "block.h"

namespace fqvae {

template <class Real> class CodebookSums {
  public:
    // wanted: else nothing is added up. rows: that the block works on at a time, a power of 2. Tiles lie so
    // far apart that the threads of a warp, which share rows or not, meet different banks.
    __device__ __forceinline__ CodebookSums(Real *sums, int lanes, bool wanted)
        : wanted_(wanted), sums_(sums), rows_(kThreads / lanes),
          tile_(4 * rows_ + (lanes > 1 ? 32 / lanes : 0)), mine_(sums + threadIdx.x / lanes) {}

    __device__ __forceinline__ void add(int first, int k, Real x) const {
        if (!wanted_)
            return;
        Real &sum = mine_[block_of(first) * tile_ + k * rows_];
        sum += x;
    }
    __device__ __forceinline__ void add(int first, int k, Real a, Real b) const {
        if (!wanted_)
            return;
        Real &sum = mine_[block_of(first) * tile_ + k * rows_];
        sum = fma(a, b, sum);
    }

    // Without barriers: the caller's.
    __device__ __forceinline__ void clear(int codes) const {
        const int count = (codes + 3) / 4 * tile_;
        if (in_fours()) {
#pragma unroll 1
            for (int i = 4 * threadIdx.x; i < count; i += 4 * kThreads)
                *reinterpret_cast<float4 *>(sums_ + i) = make_float4(0, 0, 0, 0);
            return;
        }
#pragma unroll 1
        for (int i = threadIdx.x; i < count; i += kThreads)
            sums_[i] = 0;
    }

    // Adds the sums of codes 0 ... count - 1 to `part`, which nobody else touches, and clears them.
    __device__ __forceinline__ void move_to(double *part, int count) const {
#pragma unroll 1
        for (int k = threadIdx.x; k < count; k += kThreads) {
            Real *sums = sums_ + block_of(k) * tile_ + k % 4 * rows_;
            Real quarters[4] = {0, 0, 0, 0};
            // Each thread begins elsewhere: other banks.
            if (in_fours()) {
#pragma unroll 1
                for (int i = 0; i < rows_; i += 4) {
                    auto &four = reinterpret_cast<float4 &>(sums[(i + 4 * k) & (rows_ - 1)]);
                    quarters[0] += four.x, quarters[1] += four.y;
                    quarters[2] += four.z, quarters[3] += four.w;
                    four = make_float4(0, 0, 0, 0);
                }
            } else {
#pragma unroll 1
                for (int i = 0; i < rows_; i += 4) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        Real &sum = sums[(i + j + k) & (rows_ - 1)];
                        quarters[j] += sum;
                        sum = 0;
                    }
                }
            }
            part[k] += static_cast<double>((quarters[0] + quarters[1]) + (quarters[2] + quarters[3]));
        }
    }

  private:
    // True: four neighbouring sums are read and written together.
    __device__ __forceinline__ bool in_fours() const { return sizeof(Real) == 4 && tile_ % 4 == 0; }

    bool wanted_;
    Real *sums_;
    int rows_, tile_;
    Real *mine_;
};

} // namespace fqvae
