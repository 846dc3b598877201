// Float lanes in the vector extensions of GCC and Clang: FQVAE_LANES of them, eight for AVX2, four elsewhere
// (SSE2, NEON). The operations follow row/scalar_lanes.h, where they are described.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../row/math.h"
#include "../row/tiles.h"

namespace fqvae {
namespace {

struct VectorLanes : TilesInMemory {
    typedef float F __attribute__((vector_size(4 * FQVAE_LANES)));
    typedef int32_t M __attribute__((vector_size(4 * FQVAE_LANES)));
    typedef uint32_t U __attribute__((vector_size(4 * FQVAE_LANES)));
    typedef uint64_t Wide __attribute__((vector_size(4 * FQVAE_LANES)));
    using Real = float;
    static constexpr int width = FQVAE_LANES;
    static constexpr int halves = 2; // rows 0, 2, 4 ... and rows 1, 3, 5 ...
    // The half whose row lies in the low 32 bits of a 64-bit lane: that is the first of the two U lanes there
    // on little-endian processors, and the second on big-endian ones.
    static constexpr int kLowHalf = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 1;

    FQVAE_INLINE static F set(Real x) { return x - F{}; }
    FQVAE_INLINE static F load(const Real *p) { return copy<F>(p); }
    FQVAE_INLINE static void store(Real *p, F x) { memcpy(p, &x, sizeof x); }
    FQVAE_INLINE static F fma(F a, F b, F c) { return a * b + c; }
    FQVAE_INLINE static F max(F a, F b) { return a > b ? a : b; }
    FQVAE_INLINE static F min(F a, F b) { return a < b ? a : b; }
    FQVAE_INLINE static M less(F a, F b) { return a < b; }
    FQVAE_INLINE static F select(M m, F a, F b) { return m ? a : b; }
    FQVAE_INLINE static double sum(F x) {
        double sum = 0;
        for (int i = 0; i < width; ++i)
            sum += static_cast<double>(x[i]);
        return sum;
    }
    FQVAE_INLINE static bool any(M m) {
        int32_t any = 0;
        for (int i = 0; i < width; ++i)
            any |= m[i];
        return any != 0;
    }
    FQVAE_INLINE static bool all(M m) { return !any(~m); }
    FQVAE_INLINE static bool get(M m, int lane) { return m[lane] != 0; }

    FQVAE_INLINE static U set_word(uint32_t x) { return x + U{}; }
    FQVAE_INLINE static U keep(U x) { return x; }
    FQVAE_INLINE static U select(M m, U a, U b) { return m ? a : b; }
    FQVAE_INLINE static void store_word(uint32_t *p, U x) { memcpy(p, &x, sizeof x); }
    FQVAE_INLINE static U load_word(const uint32_t *p) { return copy<U>(p); }
    FQVAE_INLINE static void store_indices(int64_t *p, U x) {
        for (int i = 0; i < width; ++i)
            p[i] = x[i];
    }

    FQVAE_INLINE static Wide row_numbers(uint32_t first, uint32_t stride, int half) {
        Wide numbers{};
        for (int i = 0; i < width / 2; ++i)
            numbers[i] = first + static_cast<uint64_t>(2 * i + half) * stride;
        return numbers;
    }
    // GCC does not see that a 64-bit product of two 32-bit numbers is one instruction, so it is named.
    FQVAE_INLINE static Wide multiply(Wide a, U b) {
#if defined(__AVX2__) && FQVAE_LANES == 8
        return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && FQVAE_LANES == 4
        return (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
        return (a & 0xffffffffull) * ((Wide)b & 0xffffffffull);
#endif
    }
    FQVAE_INLINE static Wide high(Wide a) { return a >> 32; }
    FQVAE_INLINE static Wide xor_word(Wide a, uint32_t b) { return (Wide)((U)a ^ b); }
    FQVAE_INLINE static Wide xor3(Wide a, Wide b, U c) { return a ^ b ^ (Wide)c; }
    FQVAE_INLINE static U xor3_words(U a, U b, U c) { return a ^ b ^ c; }
    FQVAE_INLINE static U merge_low(const Wide *x) {
        return (U)((x[kLowHalf] & 0xffffffffull) | (x[1 - kLowHalf] << 32));
    }
    FQVAE_INLINE static U merge_high(const Wide *x) {
        return (U)((x[kLowHalf] >> 32) | (x[1 - kLowHalf] & 0xffffffff00000000ull));
    }

    FQVAE_INLINE static U truncate(F x) { return (U) __builtin_convertvector(x, M); }
    FQVAE_INLINE static F gather(const Real *p, U index) {
        F x;
        for (int i = 0; i < width; ++i)
            x[i] = p[index[i]];
        return x;
    }
    FQVAE_INLINE static F to_real(U x) { return __builtin_convertvector((M)x, F); }
    FQVAE_INLINE static void transpose4(F a, F b, F c, F d, Real *p) {
        for (int i = 0; i < width; ++i)
            p[4 * i] = a[i], p[4 * i + 1] = b[i], p[4 * i + 2] = c[i], p[4 * i + 3] = d[i];
    }
    FQVAE_INLINE static constexpr int transposed_row(int i) { return i; }
    FQVAE_INLINE static void gather4(const Real *p, U pair, F (&four)[4]) {
        for (int j = 0; j < 4; ++j)
            for (int i = 0; i < width; ++i)
                four[j][i] = p[2 * pair[i] + static_cast<uint32_t>(j)];
    }
    // Of a matrix whose rows begin `stride` apart: four columns of `width` rows to lanes of rows, and back.
#if defined(__AVX2__) && FQVAE_LANES == 8
    static constexpr bool loads_columns = true;
    FQVAE_INLINE static void load_columns(const Real *rows, int64_t stride, F (&columns)[4]) {
        FQVAE_UNROLL
        for (int i = 0; i < 4; ++i) { // a half of a register holds one row
            const auto low = _mm256_castps128_ps256(_mm_loadu_ps(rows + i * stride));
            columns[i] = (F)_mm256_insertf128_ps(low, _mm_loadu_ps(rows + (i + 4) * stride), 1);
        }
        transpose_halves(columns);
    }
    FQVAE_INLINE static void store_columns(Real *rows, int64_t stride, F (&columns)[4]) {
        transpose_halves(columns);
        FQVAE_UNROLL
        for (int i = 0; i < 4; ++i) {
            _mm_storeu_ps(rows + i * stride, _mm256_castps256_ps128((__m256)columns[i]));
            _mm_storeu_ps(rows + (i + 4) * stride, _mm256_extractf128_ps((__m256)columns[i], 1));
        }
    }
    // The 4 x 4 numbers in each half of four registers, transposed.
    FQVAE_INLINE static void transpose_halves(F (&x)[4]) {
        const auto low = _mm256_castps_pd(_mm256_unpacklo_ps((__m256)x[0], (__m256)x[1])),
                   high = _mm256_castps_pd(_mm256_unpackhi_ps((__m256)x[0], (__m256)x[1]));
        const auto next_low = _mm256_castps_pd(_mm256_unpacklo_ps((__m256)x[2], (__m256)x[3])),
                   next_high = _mm256_castps_pd(_mm256_unpackhi_ps((__m256)x[2], (__m256)x[3]));
        x[0] = (F)_mm256_unpacklo_pd(low, next_low);
        x[1] = (F)_mm256_unpackhi_pd(low, next_low);
        x[2] = (F)_mm256_unpacklo_pd(high, next_high);
        x[3] = (F)_mm256_unpackhi_pd(high, next_high);
    }
#elif defined(__SSE2__) && FQVAE_LANES == 4
    static constexpr bool loads_columns = true;
    FQVAE_INLINE static void load_columns(const Real *rows, int64_t stride, F (&columns)[4]) {
        __m128 a = _mm_loadu_ps(rows), b = _mm_loadu_ps(rows + stride);
        __m128 c = _mm_loadu_ps(rows + 2 * stride), d = _mm_loadu_ps(rows + 3 * stride);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        columns[0] = (F)a, columns[1] = (F)b, columns[2] = (F)c, columns[3] = (F)d;
    }
    FQVAE_INLINE static void store_columns(Real *rows, int64_t stride, F (&columns)[4]) {
        F transposed[4];
        load_columns((const Real *)columns, 4, transposed);
        for (int i = 0; i < 4; ++i)
            store(rows + i * stride, transposed[i]);
    }
#else
    static constexpr bool loads_columns = false;
#endif
    // (word >> 9 | bits of 1.0f) as a float in [1, 2), less the largest float below 1: (word >> 9) 2^-23 +
    // 2^-24, exact.
    FQVAE_INLINE static F uniform(U word) { return (F)((word >> 9) | 0x3f800000u) - 0x1.fffffep-1f; }

    FQVAE_INLINE static F log2(F x, F below) { return log2_polynomial<VectorLanes>(x, below); }
    FQVAE_INLINE static F magnitude(F x) { return (F)((U)x & 0x7fffffffu); }
    FQVAE_INLINE static F exp2(F x) { return exp2_polynomial<VectorLanes>(x); }

    using Log2 = PolynomialFunctions<VectorLanes>::Log2;
    using AddLog2 = PolynomialFunctions<VectorLanes>::AddLog2;
    using Exp2 = PolynomialFunctions<VectorLanes>::Exp2;

    FQVAE_INLINE static void split(F x, F &exponent, F &mantissa) {
        M bits = (M)x;
        M e = (bits - 0x3f400000) >> 23;
        mantissa = (F)(bits - (M)((U)e << 23));
        exponent = __builtin_convertvector(e, F);
    }
    FQVAE_INLINE static F scale(F p, F magic_sum) { return (F)((U)p + ((U)magic_sum << 23)); }

    template <class V> FQVAE_INLINE static V copy(const void *p) {
        V v;
        memcpy(&v, p, sizeof v);
        return v;
    }
};

} // namespace
} // namespace fqvae
