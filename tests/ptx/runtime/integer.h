// Integer instructions that C++ has no operator for, after the PTX ISA's definitions.
#pragma once
#include "types.h"

// Keeps a value inside the range of a narrower type.
template <class To> inline To clamped(s128 x) {
    constexpr bool is_signed = To(-1) < To(0);
    constexpr int width = 8 * sizeof(To);
    const s128 low = is_signed ? -(s128(1) << (width - 1)) : 0;
    const s128 high = (s128(1) << (is_signed ? width - 1 : width)) - 1;
    return To(x < low ? low : x > high ? high : x);
}

// Division by zero is unspecified in PTX; what hardware does: all bits set, and the dividend as the
// remainder.
template <class T> inline T quotient(T a, T b) {
    if (b == 0)
        return T(-1);
    return T(-1) < T(0) && b == T(-1) ? T(u64(0) - u64(a)) : T(a / b);
}

template <class T> inline T remainder_of(T a, T b) {
    if (b == 0)
        return a;
    return T(-1) < T(0) && b == T(-1) ? T(0) : T(a % b);
}

template <class T> inline T minimum(T a, T b) { return b < a ? b : a; }
template <class T> inline T maximum(T a, T b) { return a < b ? b : a; }

inline u32 lop3(u32 a, u32 b, u32 c, u32 table) {
    u32 result = 0;
    for (u32 row = 0; row < 8; ++row)
        if (table >> row & 1)
            result |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
    return result;
}

inline u32 funnel_left(u32 low, u32 high, u32 shift) { return u32((u64(high) << 32 | low) << shift >> 32); }
inline u32 funnel_right(u32 low, u32 high, u32 shift) { return u32((u64(high) << 32 | low) >> shift); }

inline u32 permute_bytes(u32 a, u32 b, u32 selectors) {
    const u64 bytes = u64(b) << 32 | a;
    u32 result = 0;
    for (int i = 0; i < 4; ++i) {
        const u32 selector = selectors >> 4 * i;
        u8 byte = u8(bytes >> 8 * (selector & 7));
        if (selector & 8) // the byte's sign, eight times
            byte = byte & 0x80 ? 0xff : 0;
        result |= u32(byte) << 8 * i;
    }
    return result;
}

inline u64 low_bits(u32 count) { return count >= 64 ? ~u64(0) : (u64(1) << count) - 1; }

// bfe: length bits of a from a position on; signed: copies of the field's top bit (of a's, past its end)
// above them.
inline u64 extract_bits(u64 a, u32 position, u32 length, u32 width, bool is_signed) {
    position &= 255;
    length &= 255;
    if (length == 0)
        return 0;
    const u32 top = position + length - 1 < width - 1 ? position + length - 1 : width - 1;
    const u64 sign = is_signed && a >> top & 1 ? ~u64(0) : 0;
    const u32 inside = position >= width ? 0 : minimum(length, width - position);
    const u64 field = inside ? a >> position & low_bits(inside) : 0;
    return field | (sign & ~low_bits(inside));
}

inline u64 insert_bits(u64 field, u64 into, u32 position, u32 length, u32 width) {
    position &= 255;
    length &= 255;
    if (position >= width)
        return into;
    const u64 mask = low_bits(minimum(length, width - position)) << position;
    return (into & ~mask) | (field << position & mask);
}

inline u32 count_leading_zeros(u64 x, u32 width) {
    return x ? u32(__builtin_clzll(x)) - (64 - width) : width;
}

// bfind: the position of the highest bit that differs from the sign, or how far it is from the top; else all
// ones.
inline u32 highest_bit(u64 x, u32 width, bool shift_amount) {
    if (x == 0)
        return ~0u;
    const u32 leading = count_leading_zeros(x, width);
    return shift_amount ? leading : width - 1 - leading;
}

inline u64 reverse_bits(u64 x, u32 width) {
    u64 result = 0;
    for (u32 i = 0; i < width; ++i)
        result |= (x >> i & 1) << (width - 1 - i);
    return result;
}

inline u32 dot_of_bytes(u32 a, u32 b, u32 c, bool a_signed, bool b_signed) {
    for (int i = 0; i < 4; ++i) {
        const u8 x = u8(a >> 8 * i), y = u8(b >> 8 * i);
        c += u32((a_signed ? s32(s8(x)) : s32(x)) * (b_signed ? s32(s8(y)) : s32(y)));
    }
    return c;
}
