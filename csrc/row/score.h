// Scores: the distance of a row's z to every code, seen from a reference point close to z.
//
// The logit is -(z - m)^2, but only differences of logits matter, and for far z or wide codebooks they drown in the squares.
// With a reference r near z, excess e = z - r and offset d = m - r,
//     -(z - m)^2 + (z - r)^2 = d (2 e - d),
// which neither cancels nor overflows for the codes that count. Everything below is in units where this is a logarithm to
// base 2: lengths are scaled by sqrt(log2 e). A scorer knows r, and gives d and the
// logit of code k on top of a base.
#pragma once

#include <cstdint>

#include "philox.h"

namespace fqvae {

constexpr int kTileCodes = 64;                           // codes that a stage handles before the next one runs
constexpr double kLog2E = 1.4426950408889634;            // log2 e
constexpr double kLn2 = 0.6931471805599453;              // ln 2
constexpr double kLengthScale = 1.2011224087864498;      // sqrt(log2 e)
constexpr double kFar = 0x1p100, kLowestLogit = -0x1p80; // what is further away counts as this far: weight exactly 0

// What the stages hand on, code by code, a lane group each: small enough to stay in the first-level cache.
template <class L> struct Tile {
    alignas(64) typename L::Real noise[kTileCodes * L::width];
    alignas(64) typename L::Real logit[kTileCodes * L::width];
    alignas(64) typename L::Real offset[kTileCodes * L::width];
    alignas(64) typename L::Real given[kTileCodes * L::width];         // the caller's logits, transposed
    alignas(64) typename L::Real grad_weights[kTileCodes * L::width]; // v of the backward pass, transposed
};

// Calls body(k) for k = 0 ... count-1, `Unroll` at a time so that independent codes overlap.
template <int Unroll, class Body> FQVAE_INLINE void for_codes(int count, Body body) {
    int k = 0;
    for (; k + Unroll <= count; k += Unroll)
        FQVAE_UNROLL
        for (int j = 0; j < Unroll; ++j)
            body(k + j);
    for (; k < count; ++k)
        body(k);
}

// Codebooks without wide gaps, temperatures that are not small (see the plan in cpu/plan.h): r is z clamped to the range of
// the codebook, so the reference is z itself for most rows (Inside). Scores are bounded: a constant shift replaces a maximum.
template <class L, bool Inside> struct BoundedScorer {
    static constexpr bool kBounded = true, kInside = Inside, kGivenLogits = false;
    static constexpr double kOffsetScale = kLengthScale;
    const typename L::Real *codes; // centred and scaled
    typename L::F reference, twice_excess;

    FQVAE_INLINE typename L::F offset(int k) const { return L::set(codes[k]) - reference; }
    FQVAE_INLINE typename L::F excess() const { return twice_excess * L::set(static_cast<typename L::Real>(0.5)); }
    // base + logit
    FQVAE_INLINE typename L::F logit(typename L::F base, int, typename L::F d) const {
        return Inside ? base - d * d : L::fma(d, twice_excess - d, base);
    }
};

// Every other case: r is the nearest code itself, so that the largest logit is exactly 0.
template <class L> struct ExactScorer {
    static constexpr bool kBounded = false, kInside = false, kGivenLogits = false;
    static constexpr double kOffsetScale = kLengthScale;
    const typename L::Real *codes; // as given
    typename L::F reference, twice_excess;

    FQVAE_INLINE typename L::F offset(int k) const {
        auto d = (L::set(codes[k]) - reference) * L::set(static_cast<typename L::Real>(kLengthScale));
        return L::max(L::min(d, L::set(kFar)), L::set(-kFar));
    }
    FQVAE_INLINE typename L::F excess() const { return twice_excess * L::set(static_cast<typename L::Real>(0.5)); }
    FQVAE_INLINE typename L::F logit(typename L::F base, int, typename L::F d) const {
        return base + L::max(d * (twice_excess - d), L::set(kLowestLogit));
    }
};

// Logits given by an encoder, `transposed` to lanes of rows tile by tile. The reference is the row's largest logit, and the
// code that has it. -inf (a code masked out) ends as a weight of exactly 0.
template <class L> struct LogitScorer {
    static constexpr bool kBounded = false, kInside = false, kGivenLogits = true;
    static constexpr double kOffsetScale = 1;
    const typename L::Real *codes; // as given
    typename L::F largest, reference;
    const typename L::Real *transposed; // the current tile, code by code
    int first = 0;                      // its first code

    FQVAE_INLINE typename L::F offset(int k) const { return L::set(codes[k]) - reference; }
    FQVAE_INLINE typename L::F logit(typename L::F base, int k, typename L::F) const {
        auto x = L::load(transposed + (k - first) * L::width) - largest;
        return base + L::max(x * L::set(static_cast<typename L::Real>(kLog2E)), L::set(kLowestLogit));
    }
};

// The noise of `count` codes from the block of `codes` on: log2(u), of which -ln(-ln u) is made while scoring.
template <class L>
FQVAE_INLINE void draw_noise(const PhiloxRow<L> &row, const PhiloxCode *codes, const PhiloxKeys &keys, int count,
                             typename L::Real *noise) {
    constexpr int width = L::width;
    int k = 0;
    for (; k + 16 <= count; k += 16) {
        typename L::U words[16];
        philox_words<L, 4>(row, codes + k / 4, keys, words);
        FQVAE_UNROLL
        for (int j = 0; j < 16; ++j)
            L::store(noise + (k + j) * width, L::uniform(words[j]));
    }
    for (; k < count; k += 4) {
        typename L::U words[4];
        philox_words<L, 1>(row, codes + k / 4, keys, words);
        FQVAE_UNROLL
        for (int j = 0; j < 4; ++j)
            L::store(noise + (k + j) * width, L::uniform(words[j]));
    }
    for_codes<4>(k, [&](int j) FQVAE_LAMBDA {
        L::store(noise + j * width, L::log2_uniform(L::load(noise + j * width)));
    });
}

} // namespace fqvae
