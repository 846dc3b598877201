// What stands around the rows of a block: its codebook in shared memory, the rows it works on, and the
// threads that share one.
#pragma once

#include "../row/backward.h"
#include "../row/nearest.h"
#include "../row/posterior.h"
#include "../row/reference.h"
#include "lanes.h"
#include "values.h"

namespace fqvae {

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int kWarps = kThreads / 32;

// Blocks that a multiprocessor is to hold at once. Left to itself, the compiler spills registers to make room
// for a few more.
template <class Real> constexpr int kBlocksAtOnce = sizeof(Real) == 4 ? 5 : 2;

// Products that no compiler fuses with an addition: threads that share a row must round alike.
__device__ __forceinline__ float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double rounded_product(double a, double b) { return __dmul_rn(a, b); }

template <class Real> struct RowOfThread {
    int64_t row; // of the call; for a thread without one, some other row
    bool there;  // has the thread a row?
    int lane;    // of the threads that share it
};

struct Nothing {
    __device__ __forceinline__ void operator()(int, int) const {}
};

// Shared memory: keys, codes, and what the kernel wants besides. Resident: the kernel is launched only for
// codebooks that shared memory holds as a whole.
template <class Real, bool Resident = false> class Block {
  public:
    using L = DeviceLanes<Real>;

    __device__ __forceinline__ Block(const Call &call, unsigned char *memory)
        : call_(call), latent_(blockIdx.y), keys_(keys_in_registers(seed(call))),
          code_keys_(reinterpret_cast<PhiloxCode *>(memory)),
          codes_(reinterpret_cast<Real *>(memory + sizeof(PhiloxCode) * (call.staged / 4))),
          given_(static_cast<const Real *>(call.codebook) + latent_ * call.codes) {
        const int64_t before = (call.row_begin % call.codebooks + call.codebooks - latent_) % call.codebooks;
        first_row_ = call.row_begin + (before == 0 ? 0 : call.codebooks - before);
        positions_ = first_row_ < call.row_end ? (call.row_end - first_row_ - 1) / call.codebooks + 1 : 0;
        n_high_ = static_cast<uint32_t>((call.row_offset + static_cast<uint64_t>(call.row_begin)) >> 32);
        const Real temperature = call.temperature_at
                                     ? load_scalar<Real>(call.temperature_at, call.temperature_dtype)
                                     : static_cast<Real>(call.temperature);
        constants.numbers = 0;
        constants.log2_codes = static_cast<Real>(call.log2_codes);
        constants.inverse_temperature = static_cast<Real>(1) / temperature;
        constants.shift = constants.shift_below = 0;
        temperature_ = temperature;
    }

    // The compiler would rather add the keys up again for each tile than keep them in registers, unless they
    // come from memory.
    static __device__ __forceinline__ PhiloxKeys keys_in_registers(uint64_t seed) {
        __shared__ PhiloxKeys shared;
        if (threadIdx.x == 0)
            shared = PhiloxKeys(seed);
        __syncthreads();
        return shared;
    }

    static __device__ __forceinline__ uint64_t seed(const Call &call) {
        return call.seed_at ? static_cast<uint64_t>(*call.seed_at) : call.seed;
    }

    // Finds the ends of the codebook, and with `with_bounds` whether the bounded scorer serves it and a table
    // of its posterior. All threads of the block take part.
    __device__ __forceinline__ void survey(bool with_bounds) {
        __shared__ Real ends[2][kWarps];
        __shared__ unsigned occupied[2], not_finite;
        Real low = static_cast<Real>(INFINITY), high = -low;
#pragma unroll 1
        for (int k = threadIdx.x; k < call_.codes; k += kThreads) {
            const Real code = given_[k];
            low = code < low ? code : low;
            high = code > high ? code : high;
        }
        for (int distance = 16; distance > 0; distance /= 2) {
            low = fmin(low, __shfl_xor_sync(kWholeWarp, low, distance));
            high = fmax(high, __shfl_xor_sync(kWholeWarp, high, distance));
        }
        if (threadIdx.x % 32 == 0) {
            ends[0][threadIdx.x / 32] = low;
            ends[1][threadIdx.x / 32] = high;
        }
        if (threadIdx.x == 0)
            occupied[0] = occupied[1] = not_finite = 0;
        __syncthreads();
        lowest = ends[0][0];
        highest = ends[1][0];
        for (int i = 1; i < kWarps; ++i) {
            lowest = fmin(lowest, ends[0][i]);
            highest = fmax(highest, ends[1][i]);
        }
        if (!with_bounds || sizeof(Real) == 8)
            return;
        const Real bucket = (highest - lowest) / kBuckets;
#pragma unroll 1
        for (int k = threadIdx.x; k < call_.codes; k += kThreads) {
            const Real code = given_[k];
            if (!isfinite(code)) {
                atomicOr(&not_finite, 1u);
            } else if (bucket > 0 && highest - lowest <= static_cast<Real>(kWidestRange)) {
                const int i = bucket_of(code, lowest, bucket);
                atomicOr(&occupied[i / 32], 1u << i % 32);
            }
        }
        __syncthreads();
        const Real gap = largest_gap(static_cast<uint64_t>(occupied[1]) << 32 | occupied[0], bucket);
        bounds = bounds_of(lowest, highest, gap, constants.log2_codes, temperature_);
        bounds.bounded = bounds.bounded && bucket > 0 && not_finite == 0;
        if (bounds.bounded) {
            constants.shift = bounds.shift;
            constants.shift_below = bounds.shift_below;
            table = TableExtent<Real>(bounds.scaled(lowest), bounds.scaled(highest));
            if (gap > static_cast<Real>(kWidestTabulatedGap))
                table.nodes = 0;
        }
    }

    // Does shared memory hold the whole codebook?
    __device__ __forceinline__ bool resident() const { return Resident || call_.codes <= call_.staged; }

    // Brings codes `first` ... into shared memory, as the scorer wants them, with the code blocks' side of
    // Philox; they are padded to a multiple of `multiple`. Barriers are the caller's.
    __device__ __forceinline__ void stage(int first, int multiple = 4) {
        const bool scaled = bounds.bounded;
        // Codes that complete the last tiles: they never win, and their weight is 0.
        const Real padding = scaled ? static_cast<Real>(kPadding) : call_.is_logits ? 0 : INFINITY;
        const int count = min(call_.staged, call_.codes - first),
                  whole = (count + multiple - 1) / multiple * multiple;
#pragma unroll 1
        for (int k = threadIdx.x; k < whole; k += kThreads) {
            const Real code = k < count ? given_[first + k] : padding;
            codes_[k] = scaled && k < count ? bounds.scaled(code) : code;
        }
#pragma unroll 1
        for (int b = threadIdx.x; b < whole / 4; b += kThreads)
            code_keys_[b] = PhiloxCode(static_cast<uint32_t>(first / 4 + b), n_high_, keys_);
    }

    // body(first, range): for each part of the codebook that shared memory holds at a time, the tiles of this
    // thread, counted from `first`. A resident codebook must be staged already. Another is staged here, part
    // by part, and after(first, count) runs when all threads are done with one. Whole: the program is one
    // that only resident codebooks take.
    template <bool Whole = false, class Body, class After = Nothing>
    __device__ __forceinline__ void each_stage(int lane, Body body, After after = {}) {
        const int step = 4 * call_.lanes;
        if constexpr (Whole) {
            constants.numbers = 0;
            body(0, CodeRange{4 * lane, call_.codes, step});
        } else {
            const bool whole = resident();
            for (int first = 0; first < call_.codes; first += call_.staged) {
                const int count = min(call_.staged, call_.codes - first);
                if (!whole) {
                    stage(first);
                    __syncthreads();
                }
                constants.numbers = static_cast<uint32_t>(first);
                body(first, CodeRange{4 * lane, count, step});
                if (!whole) {
                    __syncthreads();
                    after(first, count);
                }
            }
        }
    }

    // body(row): all rows of this block, kThreads / lanes at a time, so that every thread of the block goes
    // through body equally often.
    template <class Body> __device__ __forceinline__ void each_row(Body body) const {
        const int at_once = kThreads / call_.lanes;
        for (int64_t chunk = blockIdx.x; chunk * at_once < positions_; chunk += gridDim.x) {
            const int64_t position = chunk * at_once + threadIdx.x / call_.lanes;
            const bool there = position < positions_;
            body(RowOfThread<Real>{first_row_ + (there ? position : 0) * call_.codebooks, there,
                                   static_cast<int>(threadIdx.x) % call_.lanes});
        }
    }

    __device__ __forceinline__ PhiloxRow<L> philox_row(int64_t row) const {
        return PhiloxRow<L>(static_cast<uint32_t>(call_.row_offset + static_cast<uint64_t>(row)), 0, keys_);
    }
    __device__ __forceinline__ Real given(int64_t k) const { return given_[k]; }
    __device__ __forceinline__ const Real *codes() const { return codes_; }
    __device__ __forceinline__ Real *behind_codes() const { return codes_ + call_.staged; } // shared memory
    __device__ __forceinline__ const PhiloxCode *code_keys() const { return code_keys_; }
    __device__ __forceinline__ const PhiloxKeys &keys() const { return keys_; }
    __device__ __forceinline__ int64_t latent() const { return latent_; }

    CallConstants<L> constants;
    Bounds<Real> bounds{};
    TableExtent<Real> table{}; // no nodes: the codebook has no table
    Real lowest, highest;

  private:
    const Call &call_;
    const int64_t latent_;
    const PhiloxKeys keys_;
    PhiloxCode *const code_keys_;
    Real *const codes_;
    const Real *const given_;
    int64_t first_row_, positions_;
    uint32_t n_high_;
    Real temperature_;
};

// The sum over the threads that share a row, the same bits in each of them.
template <class Real> __device__ __forceinline__ Real sum_of_lanes(Real x, int lanes) {
#pragma unroll 1
    for (int distance = 1; distance < lanes; distance *= 2)
        x += __shfl_xor_sync(kWholeWarp, x, distance);
    return x;
}

} // namespace fqvae
