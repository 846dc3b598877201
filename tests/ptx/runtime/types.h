// Integer names, reading one type's bits as another, and flushing of subnormals. No standard header: the
// generated code includes this, and a standard header would double the time that a kernel takes to compile.
#pragma once

typedef __UINT8_TYPE__ u8;
typedef __UINT16_TYPE__ u16;
typedef __UINT32_TYPE__ u32;
typedef __UINT64_TYPE__ u64;
typedef unsigned __int128 u128;
typedef __INT8_TYPE__ s8;
typedef __INT16_TYPE__ s16;
typedef __INT32_TYPE__ s32;
typedef __INT64_TYPE__ s64;
typedef __int128 s128;

// The same for memory that is also read as other types.
typedef u8 m8;
typedef u16 __attribute__((may_alias)) m16;
typedef u32 __attribute__((may_alias)) m32;
typedef u64 __attribute__((may_alias)) m64;
typedef u128 __attribute__((may_alias)) m128;

template <class To, class From> inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

inline float as_float(u32 x) { return bit_cast<float>(x); }
inline double as_double(u64 x) { return bit_cast<double>(x); }

// Every float32 result that is NaN is this one NaN on NVIDIA hardware.
inline u32 bits(float x) { return x == x ? bit_cast<u32>(x) : 0x7fffffffu; }
inline u64 bits(double x) { return bit_cast<u64>(x); }

// The modifier .ftz: a subnormal becomes zero and keeps its sign.
inline float flush(float x) {
    const u32 b = bit_cast<u32>(x);
    return b & 0x7f800000u ? x : as_float(b & 0x80000000u);
}
