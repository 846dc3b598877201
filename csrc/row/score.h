// Costs: how far a code is from being the winner of a row, seen from a reference close to z.
//
// The logit is -(z - m)^2, but only differences of logits matter, and for far z or wide codebooks they drown
// in the squares. With a reference r near z, excess e = z - r and offset d = m - r,
//     (z - m)^2 - (z - r)^2 = d (d - 2 e),
// which neither cancels nor overflows for the codes that count: the distance of the code, and minus its
// logit. Its cost is distance + log2(-log2 u): minus (logit + Gumbel noise), but for a constant. Costs and
// logits are logarithms to base 2; lengths are scaled by kOffsetScale. A scorer knows r, and gives the offset
// of code k, and cost and logit of the code at place k of the current tile.
#pragma once

#include <cstdint>

#include "philox.h"
#include "tiles.h"

namespace fqvae {

constexpr double kLog2E = 1.4426950408889634;       // log2 e
constexpr double kLn2 = 0.6931471805599453;         // ln 2
constexpr double kLengthScale = 1.2011224087864498; // sqrt(log2 e)
constexpr double kFar = 0x1p100,
                 kLowestLogit = -0x1p90; // what is further away counts as this far: weight exactly 0
// An excess beyond this is clamped: of the bounded scorer, and of the exact one.
constexpr double kFarExcess = 0x1p48, kFarExactExcess = 0x1p98;
// The code that completes the last tile of a padded codebook. It lies beyond every z, so it never wins.
constexpr double kPadding = 0x1p50;

// 1 / temperature, within limits: at the lower one the lowest logit still weighs exactly 0, and at the upper
// one all the weight already lies on the winner, and gradients stay finite. A denormal temperature, which may
// count as zero, gets the upper one.
template <class Real> FQVAE_INLINE Real inverse_of_temperature(double temperature) {
    constexpr double least = 0x1p-80, most = sizeof(Real) == 8 ? 0x1p500 : 0x1p100;
    const double inverse = 1 / temperature;
    return static_cast<Real>(inverse < least ? least : inverse < most ? inverse : most);
}

// What the stages hand on, code by code, a group of rows each: small enough to stay in the first-level cache,
// or in registers. In memory the arrays begin at the same place of a 4096-byte page, as the codebook's sums
// do in the backward pass: a processor compares the addresses of loads and earlier stores by their last
// twelve bits, and here a load that runs ahead meets no store that lags behind.
template <class L> struct Tile {
    static constexpr int kSize = L::tile_codes * L::width;
    alignas(L::tile_alignment)
        typename L::Real noise[kSize]; // log2 u, and in its place the cost, and in its place log2 w
    typename L::Real logit[kSize];
    typename L::Real offset[kSize];
    typename L::Real given[kSize];        // the caller's logits, transposed
    typename L::Real grad_weights[kSize]; // v of the backward pass, transposed
};

// How many codes a loop of a program takes at a time: few where it is one of many that are seldom used, which
// then compile sooner. Tiles in registers are taken whole.
template <class L, bool Often> FQVAE_INLINE constexpr int unrolled() { return Often || L::padded ? 4 : 1; }

// Calls body(k) for k = 0 ... count-1, `Unroll` at a time so that independent codes overlap.
template <int Unroll, class Body> FQVAE_INLINE void for_codes(int count, Body body) {
    int k = 0;
    for (; k + Unroll <= count; k += Unroll) {
        FQVAE_UNROLL
        for (int j = 0; j < Unroll; ++j)
            body(k + j);
    }
    for (; k < count; ++k)
        body(k);
}

// Calls body(k, log2_u) for k = 0 ... count-1: `noise` holds log2 u, and add_log2 takes what log2_u is.
// Often: see `unrolled`.
template <class L, bool Often = true, class Body>
FQVAE_INLINE void for_noise(int count, const typename L::Real *noise, const typename L::AddLog2 &add_log2,
                            Body body) {
    using F = typename L::F;
    constexpr int width = L::width;
    int k = 0;
    if constexpr (Often && L::in_step > 1) {
        constexpr int step = L::in_step;
        for (; k + step <= count; k += step) {
            F log2_u[step];
            typename L::AddLog2::Operand operands[step];
            FQVAE_UNROLL
            for (int j = 0; j < step; ++j)
                log2_u[j] = L::load(noise + (k + j) * width);
            add_log2.template in_step<step>(log2_u, operands);
            FQVAE_UNROLL
            for (int j = 0; j < step; ++j)
                body(k + j, operands[j]);
        }
        for (; k < count; ++k)
            body(k, L::load(noise + k * width));
    } else {
        for_codes<unrolled<L, Often>()>(count,
                                        [&](int k) FQVAE_LAMBDA { body(k, L::load(noise + k * width)); });
    }
}

// Codebooks without wide gaps, temperatures that are not small (see bounds.h): r is z itself within reach
// of the codebook (Inside: e = 0), else the end of the codebook that is next to z. Costs are bounded: a
// constant shift replaces a running minimum.
template <class L, bool Inside> struct BoundedScorer {
    using F = typename L::F;
    using AddLog2 = typename L::AddLog2;
    static constexpr bool kBounded = true, kInside = Inside, kGivenLogits = false;
    static constexpr double kOffsetScale = kLengthScale;
    const typename L::Real *codes; // centred and scaled
    F reference, twice_excess;

    FQVAE_INLINE F excess() const { return twice_excess * L::set(static_cast<typename L::Real>(0.5)); }
    FQVAE_INLINE F offset(int k) const { return offset_of(L::set(codes[k])); }
    FQVAE_INLINE F offset_of(F code) const { return code - reference; }   // code: of `codes`
    FQVAE_INLINE F offset_of(F code, F) const { return offset_of(code); } // of `codes`, and as given
    FQVAE_INLINE F offset_at(const typename L::U &index) const { return offset_of(L::gather(codes, index)); }
    template <class Operand>
    FQVAE_INLINE F cost(int, F d, const Operand &log2_u, const AddLog2 &add_log2) const {
        return add_log2(d, along(d), log2_u);
    }
    FQVAE_INLINE F logit(int, F d) const { return L::set(0) - d * along(d); }

  private:
    FQVAE_INLINE F along(F d) const { return Inside ? d : d - twice_excess; }
};

// The same for a group of rows of which some are beyond reach. A far z multiplies the rounding of an offset
// by its excess; the offsets of these rows are therefore differences of the codes as given, exact where codes
// are close.
template <class L> struct FarScorer : BoundedScorer<L, false> {
    using F = typename L::F;
    using Base = BoundedScorer<L, false>;
    const typename L::Real *given;
    F end; // of the codebook, that is next to z, as given
    typename L::M outside;

    FQVAE_INLINE F offset(int k) const { return pick(L::set(given[k]), Base::offset(k)); }
    FQVAE_INLINE F offset_of(F code, F as_given) const { return pick(as_given, Base::offset_of(code)); }
    FQVAE_INLINE F offset_at(const typename L::U &index) const {
        return pick(L::gather(given, index), Base::offset_at(index));
    }

  private:
    FQVAE_INLINE F pick(F code, F inside) const {
        return L::select(outside, (code - end) * L::set(static_cast<typename L::Real>(kLengthScale)), inside);
    }
};

// Every other case: r is the nearest code itself, so that the largest logit is exactly 0. Lengths stay as
// given, since their differences are often exact: between two codes far apart, a rounding of z - m is
// multiplied by the gap.
template <class L> struct ExactScorer {
    using F = typename L::F;
    using AddLog2 = typename L::AddLog2;
    static constexpr bool kBounded = false, kInside = false, kGivenLogits = false;
    static constexpr double kOffsetScale = 1;
    const typename L::Real *codes; // as given
    F reference, twice_excess;

    FQVAE_INLINE F excess() const { return twice_excess * L::set(static_cast<typename L::Real>(0.5)); }
    FQVAE_INLINE F offset(int k) const { return offset_of(L::set(codes[k])); }
    FQVAE_INLINE F offset_of(F code) const {
        return L::max(L::min(code - reference, L::set(kFar)), L::set(-kFar));
    }
    FQVAE_INLINE F offset_of(F code, F) const { return offset_of(code); }
    FQVAE_INLINE F offset_at(const typename L::U &index) const { return offset_of(L::gather(codes, index)); }
    template <class Operand>
    FQVAE_INLINE F cost(int k, F d, const Operand &log2_u, const AddLog2 &add_log2) const {
        return add_log2(logit(k, d), L::set(-1), log2_u);
    }
    FQVAE_INLINE F logit(int, F d) const {
        const F product = d * (twice_excess - d);
        return L::max(product * L::set(static_cast<typename L::Real>(kLog2E)), L::set(kLowestLogit));
    }
};

// Logits given by an encoder, `transposed` to lanes of rows tile by tile. The reference is the row's largest
// logit, and the code that has it. -inf (a code masked out) ends as a weight of exactly 0.
template <class L> struct LogitScorer {
    using F = typename L::F;
    using AddLog2 = typename L::AddLog2;
    static constexpr bool kBounded = false, kInside = false, kGivenLogits = true;
    static constexpr double kOffsetScale = 1;
    const typename L::Real *codes; // as given
    F largest, reference;
    const typename L::Real *transposed; // the current tile, code by code

    FQVAE_INLINE F offset(int k) const { return offset_of(L::set(codes[k])); }
    FQVAE_INLINE F offset_of(F code) const { return code - reference; }
    FQVAE_INLINE F offset_of(F code, F) const { return offset_of(code); }
    FQVAE_INLINE F offset_at(const typename L::U &index) const { return offset_of(L::gather(codes, index)); }
    template <class Operand>
    FQVAE_INLINE F cost(int k, F d, const Operand &log2_u, const AddLog2 &add_log2) const {
        return add_log2(logit(k, d), L::set(-1), log2_u);
    }
    FQVAE_INLINE F logit(int k, F) const {
        const F x = L::load(transposed + k * L::width) - largest;
        return L::max(x * L::set(static_cast<typename L::Real>(kLog2E)), L::set(kLowestLogit));
    }
};

// Calls body(k, word) for the words of codes 0 ... count-1 and up to three more, which complete the last
// block of four.
template <class L, class Body>
FQVAE_INLINE void each_word(const PhiloxRow<L> &row, const PhiloxCode *codes, const PhiloxKeys &keys,
                            int count, Body body) {
    int k = 0;
    for (; k + 4 * kPhiloxBlocks <= count; k += 4 * kPhiloxBlocks) {
        typename L::U words[4 * kPhiloxBlocks];
        philox_words<L, kPhiloxBlocks>(row, codes + k / 4, keys, words);
        FQVAE_UNROLL
        for (int j = 0; j < 4 * kPhiloxBlocks; ++j)
            body(k + j, words[j]);
    }
    for (; k < count; k += 4) {
        typename L::U words[4];
        philox_words<L, 1>(row, codes + k / 4, keys, words);
        FQVAE_UNROLL
        for (int j = 0; j < 4; ++j)
            body(k + j, words[j]);
    }
}

// From log2(u) to the noise -ln(-ln u).
template <class L> FQVAE_INLINE typename L::F gumbel_of_log2(typename L::F log2_u) {
    constexpr double minus_ln_ln2 = 0.36651292058166433;
    return L::fma(typename L::AddLog2()(L::set(0), L::set(0), log2_u),
                  L::set(static_cast<typename L::Real>(-kLn2)),
                  L::set(static_cast<typename L::Real>(minus_ln_ln2)));
}

// The noise of `count` codes from the block of `codes` on: log2(u), of which the cost makes -ln(-ln u).
template <class L>
FQVAE_INLINE void draw_noise(const PhiloxRow<L> &row, const PhiloxCode *codes, const PhiloxKeys &keys,
                             int count, typename L::Real *noise) {
    constexpr int width = L::width;
    each_word<L>(row, codes, keys, count, [&](int k, typename L::U word) FQVAE_LAMBDA {
        L::store(noise + k * width, L::uniform(word));
    });
    const typename L::Log2 log2;
    if constexpr (L::in_step > 1) {
        constexpr int step = L::in_step;
        int k = 0;
        for (; k + step <= count; k += step) {
            typename L::F x[step];
            FQVAE_UNROLL
            for (int j = 0; j < step; ++j)
                x[j] = L::load(noise + (k + j) * width);
            log2.template in_step<step>(x);
            FQVAE_UNROLL
            for (int j = 0; j < step; ++j)
                L::store(noise + (k + j) * width, x[j]);
        }
        for (; k < count; ++k)
            L::store(noise + k * width, log2(L::load(noise + k * width)));
    } else {
        for_codes<4>(count, [&](int k) FQVAE_LAMBDA {
            L::store(noise + k * width, log2(L::load(noise + k * width)));
        });
    }
}

} // namespace fqvae
