// Sixteen float lanes in AVX-512 registers. The operations follow row/scalar_lanes.h, where they are
// described.
#pragma once

#include <immintrin.h>

#include "../row/math.h"
#include "../row/tiles.h"
#include "log_tables.h"

namespace fqvae {

struct Avx512Lanes : TilesInMemory {
    using Real = float;
    using F = __m512;
    using U = __m512i;
    using M = __mmask16;
    using Wide = __m512i;
    static constexpr int width = 16;
    static constexpr int halves = 2; // rows 0, 2, 4 ... and rows 1, 3, 5 ...
    static constexpr int in_step = 4;

    FQVAE_INLINE static F set(Real x) { return _mm512_set1_ps(x); }
    FQVAE_INLINE static F load(const Real *p) { return _mm512_loadu_ps(p); }
    FQVAE_INLINE static void store(Real *p, F x) { _mm512_storeu_ps(p, x); }
    FQVAE_INLINE static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    FQVAE_INLINE static F max(F a, F b) { return _mm512_max_ps(a, b); }
    FQVAE_INLINE static F min(F a, F b) { return _mm512_min_ps(a, b); }
    FQVAE_INLINE static F magnitude(F x) { return _mm512_abs_ps(x); }
    FQVAE_INLINE static M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
    FQVAE_INLINE static F select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
    FQVAE_INLINE static double sum(F x) {
        auto high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
        return _mm512_reduce_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)) + high);
    }
    FQVAE_INLINE static bool any(M m) { return m != 0; }
    FQVAE_INLINE static bool all(M m) { return m == 0xffff; }
    FQVAE_INLINE static bool get(M m, int lane) { return m >> lane & 1; }

    FQVAE_INLINE static U set_word(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
    FQVAE_INLINE static U select(M m, U a, U b) { return _mm512_mask_blend_epi32(m, b, a); }
    FQVAE_INLINE static void store_word(uint32_t *p, U x) { _mm512_storeu_si512(p, x); }
    FQVAE_INLINE static U load_word(const uint32_t *p) { return _mm512_loadu_si512(p); }
    FQVAE_INLINE static void store_indices(int64_t *p, U x) {
        _mm512_storeu_si512(p, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(x)));
        _mm512_storeu_si512(p + 8, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(x, 1)));
    }

    FQVAE_INLINE static Wide row_numbers(uint32_t first, uint32_t stride, int half) {
        auto lanes = _mm512_add_epi64(_mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), _mm512_set1_epi64(half));
        return _mm512_add_epi64(_mm512_mul_epu32(lanes, _mm512_set1_epi64(stride)), _mm512_set1_epi64(first));
    }
    FQVAE_INLINE static Wide multiply(Wide a, U b) { return _mm512_mul_epu32(a, b); }
    FQVAE_INLINE static Wide high(Wide a) { return _mm512_srli_epi64(a, 32); }
    FQVAE_INLINE static Wide xor_word(Wide a, uint32_t b) { return _mm512_xor_si512(a, set_word(b)); }
    FQVAE_INLINE static Wide xor3(Wide a, Wide b, U c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
    FQVAE_INLINE static U xor3_words(U a, U b, U c) { return xor3(a, b, c); }
    FQVAE_INLINE static U merge_low(const Wide *x) {
        return _mm512_castps_si512(
            _mm512_mask_moveldup_ps(_mm512_castsi512_ps(x[0]), 0xaaaa, _mm512_castsi512_ps(x[1])));
    }
    FQVAE_INLINE static U merge_high(const Wide *x) {
        return _mm512_castps_si512(
            _mm512_mask_movehdup_ps(_mm512_castsi512_ps(x[1]), 0x5555, _mm512_castsi512_ps(x[0])));
    }

    FQVAE_INLINE static U truncate(F x) { return _mm512_cvttps_epu32(x); }
    FQVAE_INLINE static F gather(const Real *p, U index) { return _mm512_i32gather_ps(index, p, 4); }
    FQVAE_INLINE static F to_real(U x) { return _mm512_cvtepu32_ps(x); }
    FQVAE_INLINE static void transpose4(F a, F b, F c, F d, Real *p) { // within each quarter of the registers
        F x[4] = {a, b, c, d};
        transpose_quarters(x);
        FQVAE_UNROLL
        for (int i = 0; i < 4; ++i)
            store(p + 16 * i, x[i]);
    }
    FQVAE_INLINE static constexpr int transposed_row(int i) { return i % 4 * 4 + i / 4; }
    FQVAE_INLINE static void gather4(const Real *p, U pair, F (&four)[4]) {
        alignas(64) uint32_t at[16];
        store_word(at, pair);
        FQVAE_UNROLL
        for (int i = 0; i < 4; ++i) {
            F x = _mm512_castps128_ps512(_mm_loadu_ps(p + 2 * at[i]));
            x = _mm512_insertf32x4(x, _mm_loadu_ps(p + 2 * at[i + 4]), 1);
            x = _mm512_insertf32x4(x, _mm_loadu_ps(p + 2 * at[i + 8]), 2);
            four[i] = _mm512_insertf32x4(x, _mm_loadu_ps(p + 2 * at[i + 12]), 3);
        }
        transpose_quarters(four);
    }
    // Of a matrix whose rows begin `stride` apart: four columns of `width` rows to lanes of rows, and back.
    static constexpr bool loads_columns = true;
    FQVAE_INLINE static void load_columns(const Real *rows, int64_t stride, F (&columns)[4]) {
        FQVAE_UNROLL
        for (int i = 0; i < 4; ++i) { // a quarter of a register holds one row
            F x = _mm512_castps128_ps512(_mm_loadu_ps(rows + i * stride));
            x = _mm512_insertf32x4(x, _mm_loadu_ps(rows + (i + 4) * stride), 1);
            x = _mm512_insertf32x4(x, _mm_loadu_ps(rows + (i + 8) * stride), 2);
            columns[i] = _mm512_insertf32x4(x, _mm_loadu_ps(rows + (i + 12) * stride), 3);
        }
        transpose_quarters(columns);
    }
    FQVAE_INLINE static void store_columns(Real *rows, int64_t stride, F (&columns)[4]) {
        transpose_quarters(columns);
        FQVAE_UNROLL
        for (int i = 0; i < 4; ++i) {
            _mm_storeu_ps(rows + i * stride, _mm512_castps512_ps128(columns[i]));
            _mm_storeu_ps(rows + (i + 4) * stride, _mm512_extractf32x4_ps(columns[i], 1));
            _mm_storeu_ps(rows + (i + 8) * stride, _mm512_extractf32x4_ps(columns[i], 2));
            _mm_storeu_ps(rows + (i + 12) * stride, _mm512_extractf32x4_ps(columns[i], 3));
        }
    }
    // (word >> 9 | bits of 1.0f) as a float in [1, 2), less the largest float below 1: (word >> 9) 2^-23 +
    // 2^-24, exact.
    FQVAE_INLINE static F uniform(U word) {
        return _mm512_castsi512_ps(_mm512_shrdi_epi32(word, set_word(0x7f), 9)) - set(0x1.fffffep-1f);
    }

    // GCC prefers constants as memory operands; in these loops the load ports then run short before the
    // arithmetic does. What passes through here stays in a register.
    FQVAE_INLINE static F keep(F x) {
        asm("" : "+v"(x));
        return x;
    }
    FQVAE_INLINE static U keep(U x) {
        asm("" : "+v"(x));
        return x;
    }

    // log2(x) = exponent + T[i] + log2(1 + r), r = mantissa * rc[i] - 1, by the leading five bits of the
    // mantissa.
    template <int Interval> struct Reduction {
        F reciprocal[2], log[2], one = keep(set(1.0f));
        FQVAE_INLINE explicit Reduction(const LogTable &table)
            : reciprocal{keep(load(table.reciprocal)), keep(load(table.reciprocal + 16))},
              log{keep(load(table.log)), keep(load(table.log + 16))} {}

        // N numbers in step: each operation on all of them before the next operation on any. A scheduler then
        // holds few operations that wait for others.
        template <int N> FQVAE_INLINE void operator()(const F *x, F *whole, F *r, F below = set(0)) const {
            U i[N]; // the permutations read the low five bits
            F mantissa[N];
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                i[n] = keep(_mm512_srli_epi32(_mm512_castps_si512(x[n]), 18));
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                mantissa[n] = keep(_mm512_getmant_ps(x[n], static_cast<_MM_MANTISSA_NORM_ENUM>(Interval),
                                                     _MM_MANT_SIGN_zero));
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                r[n] = keep(_mm512_permutex2var_ps(reciprocal[0], i[n], reciprocal[1]));
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                whole[n] = keep(_mm512_getexp_ps(x[n]) - below);
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                r[n] = keep(_mm512_fmsub_ps(mantissa[n], r[n], one));
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                whole[n] = keep(whole[n] + _mm512_permutex2var_ps(log[0], i[n], log[1]));
        }
    };
    // Relative accuracy up to x = 1: the mantissa is taken in [0.75, 1.5), so that exponent and table are 0
    // there.
    struct Log2 {
        Reduction<_MM_MANT_NORM_p75_1p5> reduce{kCentredLog};
        F c3 = keep(set(0.4777141809463501f)), c2 = keep(set(-0.7214899659156799f)),
          c1 = keep(set(1.4426946640014648f));
        template <int N> FQVAE_INLINE void in_step(F *x, F below = set(0)) const {
            F whole[N], r[N];
            reduce.template operator()<N>(x, whole, r, below);
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                x[n] = keep(fma(c3, r[n], c2));
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                x[n] = keep(fma(x[n], r[n], c1));
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                x[n] = fma(x[n], r[n], whole[n]);
        }
        FQVAE_INLINE F operator()(F x, F below = set(0)) const {
            in_step<1>(&x, below);
            return x;
        }
    };
    // Absolute error 4.9e-7 before rounding.
    struct AddLog2 {
        Reduction<_MM_MANT_NORM_1_2> reduce{kPlainLog};
        F c2 = keep(set(-0.7214369773864746f)), c1 = keep(set(1.4427857398986816f));
        struct Operand {
            F whole, r;
        };
        template <int N> FQVAE_INLINE void in_step(const F *x, Operand *operands) const {
            F whole[N], r[N];
            reduce.template operator()<N>(x, whole, r);
            FQVAE_UNROLL
            for (int n = 0; n < N; ++n)
                operands[n] = {whole[n], r[n]};
        }
        FQVAE_INLINE F operator()(F a, F b, const Operand &x) const {
            return fma(fma(c2, x.r, c1), x.r, fma(a, b, x.whole));
        }
        FQVAE_INLINE F operator()(F a, F b, F x) const {
            Operand operand;
            in_step<1>(&x, &operand);
            return (*this)(a, b, operand);
        }
    };
    // With flush-to-zero on. `scalef` takes the floor of x as the exponent, so the polynomial covers [0, 1),
    // to 8.2e-8.
    struct Exp2 {
        F c5 = keep(set(0.0018671301659196615f)), c4 = keep(set(0.009017029777169228f)),
          c3 = keep(set(0.05579991266131401f)), c2 = keep(set(0.24016444385051727f)),
          c1 = keep(set(0.6931512951850891f)), c0 = keep(set(1.0f));
        FQVAE_INLINE F operator()(F x) const {
            auto f = _mm512_reduce_ps(x, 0x09); // x - floor(x)
            auto p = fma(fma(fma(fma(fma(c5, f, c4), f, c3), f, c2), f, c1), f, c0);
            return _mm512_scalef_ps(p, x);
        }
        // Step by step for all: in the order of the program, not only in that of the processor's choice.
        template <int Count> FQVAE_INLINE void together(const F (&x)[Count], F (&y)[Count]) const {
            F f[Count];
            const auto each = [&](auto step) FQVAE_LAMBDA {
                FQVAE_UNROLL
                for (int i = 0; i < Count; ++i)
                    step(i);
            };
            each([&](int i) FQVAE_LAMBDA { f[i] = _mm512_reduce_ps(x[i], 0x09); });
            each([&](int i) FQVAE_LAMBDA { y[i] = fma(c5, f[i], c4); });
            each([&](int i) FQVAE_LAMBDA { y[i] = fma(y[i], f[i], c3); });
            each([&](int i) FQVAE_LAMBDA { y[i] = fma(y[i], f[i], c2); });
            each([&](int i) FQVAE_LAMBDA { y[i] = fma(y[i], f[i], c1); });
            each([&](int i) FQVAE_LAMBDA { y[i] = fma(y[i], f[i], c0); });
            each([&](int i) FQVAE_LAMBDA { y[i] = _mm512_scalef_ps(y[i], x[i]); });
        }
    };
    FQVAE_INLINE static F log2(F x, F below) { return Log2()(x, below); }
    FQVAE_INLINE static F exp2(F x) { return Exp2()(x); }

  private:
    // The 4 x 4 numbers in each quarter of four registers, transposed.
    FQVAE_INLINE static void transpose_quarters(F (&x)[4]) {
        const auto low = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1])),
                   high = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
        const auto next_low = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3])),
                   next_high = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
        x[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, next_low));
        x[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, next_low));
        x[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, next_high));
        x[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, next_high));
    }
};

} // namespace fqvae
