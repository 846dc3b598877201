// Sixteen float lanes in AVX-512 registers. The operations follow row/scalar_lanes.h, where they are described.
#pragma once

#include <immintrin.h>

#include "../row/math.h"
#include "log_tables.h"

namespace fqvae {

struct Avx512Lanes {
    using Real = float;
    using F = __m512;
    using U = __m512i;
    using M = __mmask16;
    using Wide = __m512i;
    static constexpr int width = 16;
    static constexpr int halves = 2; // rows 0, 2, 4 ... and rows 1, 3, 5 ...

    FQVAE_INLINE static F set(Real x) { return _mm512_set1_ps(x); }
    FQVAE_INLINE static F load(const Real *p) { return _mm512_loadu_ps(p); }
    FQVAE_INLINE static void store(Real *p, F x) { _mm512_storeu_ps(p, x); }
    FQVAE_INLINE static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    FQVAE_INLINE static F max(F a, F b) { return _mm512_max_ps(a, b); }
    FQVAE_INLINE static F min(F a, F b) { return _mm512_min_ps(a, b); }
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
    FQVAE_INLINE static Wide multiply(Wide a, uint32_t b) { return _mm512_mul_epu32(a, set_word(b)); }
    FQVAE_INLINE static Wide high(Wide a) { return _mm512_srli_epi64(a, 32); }
    FQVAE_INLINE static Wide xor_word(Wide a, uint32_t b) { return _mm512_xor_si512(a, set_word(b)); }
    FQVAE_INLINE static Wide xor3(Wide a, Wide b, uint32_t c) {
        return _mm512_ternarylogic_epi32(a, b, set_word(c), 0x96);
    }
    FQVAE_INLINE static U xor3_words(U a, U b, uint32_t c) { return xor3(a, b, c); }
    FQVAE_INLINE static U merge_low(const Wide *x) {
        return _mm512_castps_si512(
            _mm512_mask_moveldup_ps(_mm512_castsi512_ps(x[0]), 0xaaaa, _mm512_castsi512_ps(x[1])));
    }
    FQVAE_INLINE static U merge_high(const Wide *x) {
        return _mm512_castps_si512(
            _mm512_mask_movehdup_ps(_mm512_castsi512_ps(x[1]), 0x5555, _mm512_castsi512_ps(x[0])));
    }

    // (word >> 9 | bits of 1.0f) as a float in [1, 2), less the largest float below 1: (word >> 9) 2^-23 + 2^-24, exact.
    FQVAE_INLINE static F uniform(U word) {
        return _mm512_castsi512_ps(_mm512_shrdi_epi32(word, set_word(0x7f), 9)) - set(0x1.fffffep-1f);
    }

    // log2(x) = exponent + T[i] + log2(1 + r), r = mantissa * rc[i] - 1, by the leading five bits of the mantissa.
    struct Reduced {
        F exponent, table, r;
    };
    template <int Interval> FQVAE_INLINE static Reduced reduce(F x, const LogTable &t) {
        auto i = _mm512_srli_epi32(_mm512_castps_si512(x), 18); // the permutations read the low five bits
        auto mantissa = _mm512_getmant_ps(x, static_cast<_MM_MANTISSA_NORM_ENUM>(Interval), _MM_MANT_SIGN_zero);
        auto rc = _mm512_permutex2var_ps(_mm512_load_ps(t.reciprocal), i, _mm512_load_ps(t.reciprocal + 16));
        auto table = _mm512_permutex2var_ps(_mm512_load_ps(t.log), i, _mm512_load_ps(t.log + 16));
        return {_mm512_getexp_ps(x), table, _mm512_fmsub_ps(mantissa, rc, set(1.0f))};
    }
    // Relative accuracy up to x = 1: the mantissa is taken in [0.75, 1.5), so that exponent and table are 0 there.
    FQVAE_INLINE static F log2(F x) {
        auto [exponent, table, r] = reduce<_MM_MANT_NORM_p75_1p5>(x, kCentredLog);
        auto p = fma(set(0.4777141809463501f), r, set(-0.7214899659156799f));
        p = fma(p, r, set(1.4426946640014648f));
        return fma(p, r, exponent + table);
    }
    FQVAE_INLINE static F log2_uniform(F u) { return log2(u); }
    // base - log2|x|, to 5e-7: this one is added to scores and need not be better.
    FQVAE_INLINE static F minus_log2_magnitude(F base, F x) {
        auto [exponent, table, r] = reduce<_MM_MANT_NORM_1_2>(x, kPlainLog);
        auto p = fma(set(-0.7214369773864746f), r, set(1.4427857398986816f));
        return _mm512_fnmadd_ps(p, r, base - exponent - table);
    }

    // 2^x, exactly 1 at 0 and 0 below -126 (with flush-to-zero on). `scalef` takes the floor of x as the exponent, so the
    // polynomial covers [0, 1), to 8.2e-8.
    FQVAE_INLINE static F exp2(F x) {
        auto f = _mm512_reduce_ps(x, 0x09); // x - floor(x)
        auto p = set(0.0018671301659196615f);
        p = fma(p, f, set(0.009017029777169228f));
        p = fma(p, f, set(0.05579991266131401f));
        p = fma(p, f, set(0.24016444385051727f));
        p = fma(p, f, set(0.6931512951850891f));
        p = fma(p, f, set(1.0f));
        return _mm512_scalef_ps(p, x);
    }
};

} // namespace fqvae
