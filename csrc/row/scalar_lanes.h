// A lane type is the vocabulary in which a row's program is written: `width` rows side by side, one row to a
// lane. This one has a single lane. With `double` it serves float64 tensors; with `float` it is the
// instruction set "scalar", which the tests run. A GPU thread's lanes derive from it (device_lanes.h).
//
// Every lane type offers: Real, F (lanes of Real), U (lanes of uint32), M (lanes of true/false), Wide (lanes
// of uint64, `halves` registers of which hold one U), and the functions below. Arithmetic is written with + -
// *; `max` and `min` return their second argument if either is NaN, as the SSE instructions do.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "math.h"
#include "tiles.h"

namespace fqvae {

template <class R, class Tiles = TilesInMemory> struct ScalarLanes : Tiles {
    using Real = R;
    using F = R;
    using U = uint32_t;
    using M = bool;
    using Wide = uint64_t;
    static constexpr int width = 1;
    static constexpr int halves = 1;

    FQVAE_INLINE static F set(Real x) { return x; }
    FQVAE_INLINE static F load(const Real *p) { return *p; }
    FQVAE_INLINE static void store(Real *p, F x) { *p = x; }
    FQVAE_INLINE static F fma(F a, F b, F c) { return a * b + c; }
    FQVAE_INLINE static F max(F a, F b) { return a > b ? a : b; }
    FQVAE_INLINE static F min(F a, F b) { return a < b ? a : b; }
    FQVAE_INLINE static M less(F a, F b) { return a < b; }
    FQVAE_INLINE static F select(M m, F a, F b) { return m ? a : b; }
    FQVAE_INLINE static double sum(F x) { return x; }
    FQVAE_INLINE static bool any(M m) { return m; }
    FQVAE_INLINE static bool all(M m) { return m; }
    FQVAE_INLINE static bool get(M m, int) { return m; }

    FQVAE_INLINE static U set_word(uint32_t x) { return x; }
    // In a register, where the compiler would rather read it again and again.
    FQVAE_INLINE static U keep(U x) { return x; }
    FQVAE_INLINE static U select(M m, U a, U b) { return m ? a : b; }
    FQVAE_INLINE static void store_word(uint32_t *p, U x) { *p = x; }
    FQVAE_INLINE static U load_word(const uint32_t *p) { return *p; }
    FQVAE_INLINE static void store_indices(int64_t *p, U x) { *p = x; }

    // Philox (philox.h): the 64-bit product of the low words, and the two halves of a register.
    FQVAE_INLINE static Wide row_numbers(uint32_t first, uint32_t, int) { return first; }
    FQVAE_INLINE static Wide multiply(Wide a, U b) { return (a & 0xffffffffu) * b; }
    FQVAE_INLINE static Wide high(Wide a) { return a >> 32; }
    FQVAE_INLINE static Wide xor_word(Wide a, uint32_t b) { return a ^ b; }
    FQVAE_INLINE static Wide xor3(Wide a, Wide b, U c) { return a ^ b ^ c; }
    FQVAE_INLINE static U merge_low(const Wide *x) { return static_cast<U>(x[0]); }
    FQVAE_INLINE static U merge_high(const Wide *x) { return static_cast<U>(x[0] >> 32); }
    FQVAE_INLINE static U xor3_words(U a, U b, U c) { return a ^ b ^ c; }

    FQVAE_INLINE static U truncate(F x) { return static_cast<U>(x); } // x in [0, 2^31)
    FQVAE_INLINE static F gather(const Real *p, U index) { return p[index]; }
    FQVAE_INLINE static F to_real(U x) { return static_cast<F>(x); }
    // Four numbers of each row, side by side in memory: row i's begin at 4 * transposed_row(i).
    FQVAE_INLINE static void transpose4(F a, F b, F c, F d, Real *p) {
        p[0] = a, p[1] = b, p[2] = c, p[3] = d;
    }
    FQVAE_INLINE static constexpr int transposed_row(int) { return 0; }
    FQVAE_INLINE static void gather4(const Real *p, U pair, F (&four)[4]) { // of pairs: this one and the next
        for (int j = 0; j < 4; ++j)
            four[j] = p[2 * pair + static_cast<U>(j)];
    }
    static constexpr bool loads_columns = false; // true: has load_columns and store_columns
    FQVAE_INLINE static F uniform(U word) {
        return (static_cast<Real>(word >> 9) + static_cast<Real>(0.5)) * static_cast<Real>(0x1p-23);
    }
    FQVAE_INLINE static F log2(F x, F below) { // log2(x) - below; below is a whole number
        if constexpr (sizeof(Real) == 8)
            return ::log2(x) - below;
        else
            return log2_polynomial<ScalarLanes>(x, below);
    }
    FQVAE_INLINE static F magnitude(F x) { return x < 0 ? -x : x; }
    FQVAE_INLINE static F exp2(F x) {
        if constexpr (sizeof(Real) == 8)
            return x < -1000 ? 0 : ::exp2(x);
        else
            return exp2_polynomial<ScalarLanes>(x);
    }

    using Log2 = typename PolynomialFunctions<ScalarLanes>::Log2;
    using AddLog2 = typename PolynomialFunctions<ScalarLanes>::AddLog2;
    using Exp2 = typename PolynomialFunctions<ScalarLanes>::Exp2;

    // What the polynomials of math.h need: x = mantissa * 2^exponent with the mantissa in [0.75, 1.5), and p
    // * 2^n.
    FQVAE_INLINE static void split(F x, F &exponent, F &mantissa) {
        int32_t bits;
        memcpy(&bits, &x, 4);
        int32_t e = (bits - 0x3f400000) >> 23;
        bits -= static_cast<int32_t>(static_cast<uint32_t>(e) << 23);
        memcpy(&mantissa, &bits, 4);
        exponent = static_cast<F>(e);
    }
    FQVAE_INLINE static F scale(F p, F magic_sum) {
        uint32_t n, bits;
        memcpy(&n, &magic_sum, 4);
        memcpy(&bits, &p, 4);
        bits += n << 23;
        memcpy(&p, &bits, 4);
        return p;
    }
};

} // namespace fqvae
