// Floating-point arithmetic that C++ has no operator for: minimum and maximum, directed rounding, conversions
// to integers and to the 16-bit formats. PTX names the rounding modes rn, rz, rm and rp.
#pragma once
#include "types.h"

enum Rounding : u32 { rn, rz, rm, rp };

template <class T> inline T minimum_number(T a, T b) {
    if (a != a || b != b)
        return a == a ? a : b;
    if (a == b)
        return __builtin_signbit(a) ? a : b;
    return a < b ? a : b;
}
template <class T> inline T maximum_number(T a, T b) {
    if (a != a || b != b)
        return a == a ? a : b;
    if (a == b)
        return __builtin_signbit(a) ? b : a;
    return a > b ? a : b;
}
template <class T> inline T minimum_nan(T a, T b) {
    return a != a || b != b ? T(__builtin_nan("")) : minimum_number(a, b);
}
template <class T> inline T maximum_nan(T a, T b) {
    return a != a || b != b ? T(__builtin_nan("")) : maximum_number(a, b);
}

// The modifier .sat: into [0, 1], NaN to 0.
template <class T> inline T saturated(T x) { return x > 0 ? (x < 1 ? x : T(1)) : T(0); }

float add(float a, float b, Rounding mode);
float multiply(float a, float b, Rounding mode);
float multiply_add(float a, float b, float c, Rounding mode);
float divide(float a, float b, Rounding mode);
float square_root(float a, Rounding mode);
double add(double a, double b, Rounding mode);
double multiply(double a, double b, Rounding mode);
double multiply_add(double a, double b, double c, Rounding mode);
double divide(double a, double b, Rounding mode);
double square_root(double a, Rounding mode);
float to_float(double x, Rounding mode);
float to_float(s64 x, Rounding mode);
float to_float(u64 x, Rounding mode);
double to_double(s64 x, Rounding mode);
double to_double(u64 x, Rounding mode);

// To an integral value in floating point: nearest even, toward zero, down, up.
double to_integral(double x, Rounding mode);

// An integral value as an integer: out of range gives the nearest end, NaN gives `nan`.
template <class To> inline To to_integer(double x, u64 nan) {
    constexpr bool is_signed = To(-1) < To(0);
    constexpr int width = 8 * sizeof(To);
    if (x != x)
        return To(nan);
    const double end = is_signed ? double(u64(1) << (width - 1)) : 2.0 * double(u64(1) << (width - 1));
    if (x >= end)
        return To(is_signed ? (u64(1) << (width - 1)) - 1 : ~u64(0));
    if (x <= (is_signed ? -end : 0.0))
        return is_signed ? To(u64(1) << (width - 1)) : To(0);
    return To(x);
}

// The 16-bit formats are kept as their bits.
float f16_to_float(u16 x);
inline float bf16_to_float(u16 x) { return as_float(u32(x) << 16); }
u16 to_f16(long double x, Rounding mode = rn);
u16 to_bf16(long double x, Rounding mode = rn);
inline u32 pack(u16 low, u16 high) { return u32(high) << 16 | low; }
inline u64 pack_floats(float low, float high) { return u64(bits(high)) << 32 | bits(low); }

// a * b + c with so much of the exact value kept that rounding it to 16 bits rounds once. a * b must be
// exact.
double fused_for_16_bits(double a, double b, double c);
