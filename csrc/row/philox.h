// Philox4x32-10 (Salmon et al., SC 2011), laid out for many rows against many codes.
//
// The counter of code block b = k div 4 in row n is (b, 0, n low, n high). Of its ten rounds the first two
// mix values that belong to the row alone or to the code block alone, so each side is computed once and only
// meets the other in round 3: PhiloxRow holds the row's side, PhiloxCode the block's. A round is, per row and
// block,
//     c0' = high(M1 c2) ^ c1 ^ key0      c1' = low(M1 c2)
//     c2' = high(M0 c0) ^ c3 ^ key1      c3' = low(M0 c0)
// and runs in 64-bit lanes, where one multiplication gives both halves: c1 and c3 are used from the low
// halves, and what is left in the high halves never matters, because multiplications read low halves only.
#pragma once

#include <cstdint>

#include "platform.h"

namespace fqvae {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;
constexpr int kPhiloxBlocks =
    2; // of four codes, drawn together: enough to keep the multipliers busy, and they fit in registers

struct PhiloxKeys {
    uint32_t k0[kPhiloxRounds], k1[kPhiloxRounds];

    PhiloxKeys() = default;
    FQVAE_INLINE explicit PhiloxKeys(uint64_t seed) {
        k0[0] = static_cast<uint32_t>(seed);
        k1[0] = static_cast<uint32_t>(seed >> 32);
        for (int r = 1; r < kPhiloxRounds; ++r) {
            k0[r] = k0[r - 1] + kPhiloxW0;
            k1[r] = k1[r - 1] + kPhiloxW1;
        }
    }
};

// The block's side: round 3 multiplies (row.into_c0 ^ into_c0) and (row.into_c2 ^ into_c2), and then mixes
// next_c0 in.
struct alignas(16) PhiloxCode {
    uint32_t into_c0, into_c2, next_c0;

    PhiloxCode() = default;
    FQVAE_INLINE PhiloxCode(uint32_t block, uint32_t n_high, const PhiloxKeys &keys) {
        uint64_t first = static_cast<uint64_t>(kPhiloxM0) * block;
        uint32_t c2 = static_cast<uint32_t>(first >> 32) ^ n_high ^ keys.k1[0];
        uint64_t second = static_cast<uint64_t>(kPhiloxM1) * c2;
        into_c0 = static_cast<uint32_t>(second >> 32) ^ keys.k0[1];
        into_c2 = static_cast<uint32_t>(first) ^ keys.k1[1];
        next_c0 = static_cast<uint32_t>(second) ^ keys.k0[2];
    }
};

template <class L> struct PhiloxRow {
    typename L::Wide into_c0[L::halves], into_c2[L::halves], next_c2[L::halves];

    // Row numbers n, n + stride, n + 2 stride ... (low words): lane i of half h is for the row in lane halves
    // * i + h. second_word: of the counter, which is (b, second_word, n low, n high).
    FQVAE_INLINE PhiloxRow(uint32_t n, uint32_t stride, const PhiloxKeys &keys, uint32_t second_word = 0) {
        FQVAE_UNROLL
        for (int h = 0; h < L::halves; ++h) {
            auto first = L::multiply(L::row_numbers(n, stride, h), L::set_word(kPhiloxM1));
            auto second =
                L::multiply(L::xor_word(L::high(first), keys.k0[0] ^ second_word), L::set_word(kPhiloxM0));
            into_c0[h] = first;
            into_c2[h] = L::high(second);
            next_c2[h] = L::xor_word(second, keys.k1[2]);
        }
    }
};

// Rounds 3 to 10 for `Blocks` neighbouring blocks of codes, interleaved: words[4 j + i] is output i of block
// j.
template <class L, int Blocks>
FQVAE_INLINE void philox_words(const PhiloxRow<L> &row, const PhiloxCode *codes, const PhiloxKeys &keys,
                               typename L::U *words) {
    using Wide = typename L::Wide;
    const auto m0 = L::keep(L::set_word(kPhiloxM0)), m1 = L::keep(L::set_word(kPhiloxM1));
    Wide c0[Blocks][L::halves], c1[Blocks][L::halves], c2[Blocks][L::halves], c3[Blocks][L::halves];
    FQVAE_UNROLL
    for (int b = 0; b < Blocks; ++b) {
        FQVAE_UNROLL
        for (int h = 0; h < L::halves; ++h) {
            Wide p0 = L::multiply(L::xor_word(row.into_c0[h], codes[b].into_c0), m0);
            Wide p1 = L::multiply(L::xor_word(row.into_c2[h], codes[b].into_c2), m1);
            c0[b][h] = L::xor_word(L::high(p1), codes[b].next_c0);
            c2[b][h] = L::high(p0) ^ row.next_c2[h];
            c1[b][h] = p1;
            c3[b][h] = p0;
        }
    }
    FQVAE_UNROLL
    for (int r = 3; r < kPhiloxRounds - 1; ++r) {
        const auto key0 = L::keep(L::set_word(keys.k0[r])), key1 = L::keep(L::set_word(keys.k1[r]));
        FQVAE_UNROLL
        for (int b = 0; b < Blocks; ++b) {
            FQVAE_UNROLL
            for (int h = 0; h < L::halves; ++h) {
                Wide p0 = L::multiply(c0[b][h], m0), p1 = L::multiply(c2[b][h], m1);
                c0[b][h] = L::xor3(L::high(p1), c1[b][h], key0);
                c2[b][h] = L::xor3(L::high(p0), c3[b][h], key1);
                c1[b][h] = p1;
                c3[b][h] = p0;
            }
        }
    }
    const auto key0 = L::keep(L::set_word(keys.k0[kPhiloxRounds - 1]));
    const auto key1 = L::keep(L::set_word(keys.k1[kPhiloxRounds - 1]));
    FQVAE_UNROLL
    for (int b = 0; b < Blocks; ++b) {
        Wide p0[L::halves], p1[L::halves];
        FQVAE_UNROLL
        for (int h = 0; h < L::halves; ++h) {
            p0[h] = L::multiply(c0[b][h], m0);
            p1[h] = L::multiply(c2[b][h], m1);
        }
        words[4 * b] = L::xor3_words(L::merge_high(p1), L::merge_low(c1[b]), key0);
        words[4 * b + 1] = L::merge_low(p1);
        words[4 * b + 2] = L::xor3_words(L::merge_high(p0), L::merge_low(c3[b]), key1);
        words[4 * b + 3] = L::merge_low(p0);
    }
}

} // namespace fqvae
