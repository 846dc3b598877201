// What stands around the rows of a block: its codebook in shared memory, the rows it works on, and the
// threads that share one.
#pragma once

#include "../row/backward.h"
#include "../row/device_lanes.h"
#include "../row/drawn.h"
#include "../row/largest.h"
#include "../row/nearest.h"
#include "../row/posterior.h"
#include "../row/reference.h"
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
    bool there;  // true: the thread has a row
    int lane;    // of the threads that share it
};

struct Nothing {
    __device__ __forceinline__ void operator()(int, int) const {}
};

// Shared memory: keys, codes as the scorer wants them, what the kernel wants besides, and in float, where the
// bounded scorer wants other codes, those as given. Resident: the kernel is launched only for codebooks that
// shared memory holds as a whole.
template <class Real, bool Resident = false> class Block {
  public:
    using L = DeviceLanes<Real>;

    __device__ __forceinline__ Block(const Call &call, const Launch &launch, unsigned char *memory)
        : call_(call), launch_(launch), codebook_(blockIdx.y), keys_(keys_in_registers(seed(call))),
          code_keys_(reinterpret_cast<PhiloxCode *>(memory)),
          codes_(reinterpret_cast<Real *>(memory + sizeof(PhiloxCode) * (launch.staged / 4))),
          codes_as_given_(reinterpret_cast<Real *>(memory + launch.as_given)),
          given_(static_cast<const Real *>(call.codebook) + codebook_ * call.codes) {
        const int64_t before =
            (launch.row_begin % call.codebooks + call.codebooks - codebook_) % call.codebooks;
        first_row_ = launch.row_begin + (before == 0 ? 0 : call.codebooks - before);
        positions_ = first_row_ < launch.row_end ? (launch.row_end - first_row_ - 1) / call.codebooks + 1 : 0;
        n_high_ = static_cast<uint32_t>((call.row_offset + static_cast<uint64_t>(launch.row_begin)) >> 32);
        const Real temperature = call.temperature_at
                                     ? load_scalar<Real>(call.temperature_at, call.temperature_dtype)
                                     : static_cast<Real>(call.temperature);
        constants.numbers = 0;
        constants.log2_codes = static_cast<Real>(call.log2_codes);
        constants.inverse_temperature = inverse_of_temperature<Real>(temperature);
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

    // Finds the ends of the codebook, whether it is spoilt, and with `with_bounds` whether the bounded scorer
    // serves it and a table of its posterior. All threads of the block take part.
    __device__ __forceinline__ void survey(bool with_bounds) {
        __shared__ Real ends[2][kWarps];
        __shared__ unsigned occupied[2];
        const Real infinity = static_cast<Real>(INFINITY);
        Real low = infinity, high = -infinity;
#pragma unroll 1
        for (int k = threadIdx.x; k < call_.codes; k += kThreads) {
            const Real code = given_[k];
            low = !(code < infinity) ? -infinity : code < low ? code : low; // of NaN and +inf, too
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
            occupied[0] = occupied[1] = 0;
        __syncthreads();
        lowest = ends[0][0];
        highest = ends[1][0];
        for (int i = 1; i < kWarps; ++i) {
            lowest = fmin(lowest, ends[0][i]);
            highest = fmax(highest, ends[1][i]);
        }
        spoilt = lowest == -infinity;
        if (spoilt)
            lowest = highest = 0;
        if (!with_bounds || sizeof(Real) == 8)
            return;
        const Real bucket = (highest - lowest) / kBuckets;
#pragma unroll 1
        for (int k = threadIdx.x; k < call_.codes; k += kThreads) {
            if (bucket > 0 && highest - lowest <= static_cast<Real>(kWidestRange)) {
                const int i = bucket_of(given_[k], lowest, bucket);
                atomicOr(&occupied[i / 32], 1u << i % 32);
            }
        }
        __syncthreads();
        const Real gap = largest_gap(static_cast<uint64_t>(occupied[1]) << 32 | occupied[0], bucket);
        bounds = bounds_of(lowest, highest, gap, constants.log2_codes, temperature_);
        bounds.bounded = bounds.bounded && bucket > 0;
        if (bounds.bounded) {
            constants.shift = bounds.shift;
            constants.shift_below = bounds.shift_below;
            table = TableExtent<Real>(bounds.scaled(lowest), bounds.scaled(highest));
            if (gap > static_cast<Real>(kWidestTabulatedGap))
                table.nodes = 0;
        }
    }

    // A given code as the scorer wants it.
    __device__ __forceinline__ Real as_staged(Real code) const {
        return bounds.bounded ? bounds.scaled(code) : code;
    }

    // Finds out whether the codebook is spoilt, and nothing else. All threads of the block take part.
    __device__ __forceinline__ void survey_for_logits() {
        bool mine = false;
#pragma unroll 1
        for (int k = threadIdx.x; k < call_.codes; k += kThreads)
            mine = mine || !isfinite(given_[k]);
        spoilt = __syncthreads_or(mine);
    }

    // True: shared memory holds the whole codebook.
    __device__ __forceinline__ bool resident() const { return Resident || call_.codes <= launch_.staged; }

    // Brings codes `first` ... into shared memory, as the scorer wants them, with the code blocks' side of
    // Philox; they are padded to a multiple of `multiple`. Barriers are the caller's.
    __device__ __forceinline__ void stage(int first, int multiple = 4) {
        // Codes that complete the last tiles: they never win, and their weight is 0.
        const Real padding = bounds.bounded ? static_cast<Real>(kPadding) : call_.is_logits ? 0 : INFINITY;
        const int count = min(launch_.staged, call_.codes - first),
                  whole = (count + multiple - 1) / multiple * multiple;
#pragma unroll 1
        for (int k = threadIdx.x; k < whole; k += kThreads) {
            const Real code = k < count ? given(first + k) : padding;
            if constexpr (sizeof(Real) == 4)
                codes_as_given_[k] = code;
            codes_[k] = k < count ? as_staged(code) : code;
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
        const int step = 4 * launch_.lanes;
        if constexpr (Whole) {
            constants.numbers = 0;
            body(0, CodeRange{4 * lane, call_.codes, step});
        } else {
            const bool whole = resident();
            for (int first = 0; first < call_.codes; first += launch_.staged) {
                const int count = min(launch_.staged, call_.codes - first);
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
        const int at_once = kThreads / launch_.lanes;
        for (int64_t chunk = blockIdx.x; chunk * at_once < positions_; chunk += gridDim.x) {
            const int64_t position = chunk * at_once + threadIdx.x / launch_.lanes;
            const bool there = position < positions_;
            body(RowOfThread<Real>{first_row_ + (there ? position : 0) * call_.codebooks, there,
                                   static_cast<int>(threadIdx.x) % launch_.lanes});
        }
    }

    __device__ __forceinline__ PhiloxRow<L> philox_row(int64_t row) const {
        return PhiloxRow<L>(static_cast<uint32_t>(call_.row_offset + static_cast<uint64_t>(row)), 0, keys_);
    }
    // The one uniform number of a row (drawn.h).
    __device__ __forceinline__ Real row_uniform(int64_t row) const {
        const auto number = static_cast<uint32_t>(call_.row_offset + static_cast<uint64_t>(row));
        return fqvae::row_uniform(PhiloxRow<L>(number, 1, keys_, 1), PhiloxCode(0, n_high_, keys_), keys_);
    }
    template <class Scorer>
    __device__ __forceinline__ RowContext<L, Scorer> context(const Scorer &scorer, const PhiloxRow<L> &philox,
                                                             Tile<L> &tile) const {
        return {constants, scorer, philox, code_keys_, keys_, tile};
    }
    // Four numbers of a row of (rows, codes) from code k on; see values.h.
    __device__ __forceinline__ void load_four(const void *p, int64_t row, int k, Real beyond,
                                              Real *out) const {
        fqvae::load_four(p, call_, launch_.vectors, row, k, beyond, out);
    }
    __device__ __forceinline__ void store_four(void *p, int64_t row, int k, const Real *from) const {
        fqvae::store_four(p, call_, launch_.vectors, row, k, from);
    }
    __device__ __forceinline__ int lanes() const { return launch_.lanes; } // threads that share a row
    // Of a spoilt codebook all codes count as 0: its rows are computed too, but nothing comes of it.
    __device__ __forceinline__ Real given(int64_t k) const { return spoilt ? 0 : given_[k]; }
    __device__ __forceinline__ const Real *codes() const { return codes_; }
    __device__ __forceinline__ const Real *codes_as_given() const { return codes_as_given_; }
    __device__ __forceinline__ Real *behind_codes() const { return codes_ + launch_.staged; } // shared memory
    __device__ __forceinline__ int64_t codebook() const { return codebook_; }

    CallConstants<L> constants;
    Bounds<Real> bounds{};
    TableExtent<Real> table{}; // no nodes: the codebook has no table
    Real lowest, highest;
    bool spoilt; // a code is NaN or infinite: no row is usable

  private:
    const Call &call_;
    const Launch &launch_;
    const int64_t codebook_;
    const PhiloxKeys keys_;
    PhiloxCode *const code_keys_;
    Real *const codes_, *const codes_as_given_;
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
