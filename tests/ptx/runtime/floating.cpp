// Compiled with -frounding-math, so that no operation is moved across a change of the rounding mode.
#include "floating.h"

#include <cfenv>
#include <cmath>

namespace {

class RoundingScope {
  public:
    explicit RoundingScope(Rounding mode) {
        static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
        std::fesetround(modes[mode]);
    }
    ~RoundingScope() { std::fesetround(FE_TONEAREST); }
};

// Hides a value from the compiler, which would otherwise compute constants and move operations.
template <class T> T opaque(T x) {
    volatile T y = x;
    return y;
}

// To a binary format of 16 bits with `fraction` stored bits and the least normal exponent `least`.
u16 to_16_bits(long double x, int fraction, int least, Rounding mode) {
    const int exponent_bits = 15 - fraction;
    const u16 infinity = u16(((1 << exponent_bits) - 1) << fraction);
    const u16 sign = std::signbit(x) ? 0x8000 : 0;
    if (std::isnan(x))
        return 0x7fff;
    const long double size = std::fabs(x);
    if (size == 0 || std::isinf(size))
        return size == 0 ? sign : u16(sign | infinity);
    int exponent = 0;
    std::frexp(size, &exponent);
    exponent = exponent - 1 < least ? least : exponent - 1;
    const long double units = std::ldexp(size, fraction - exponent); // exact
    const bool away = mode == (sign ? rm : rp);
    long double rounded = mode == rn ? std::nearbyint(units) : away ? std::ceil(units) : std::floor(units);
    // A carry into the next binade, and from the subnormals to the normals, comes out right by adding.
    const long double bits = rounded + std::ldexp((long double)(exponent - least), fraction);
    if (bits >= infinity)
        return sign | (mode == rn || away ? infinity : u16(infinity - 1));
    return sign | u16(bits);
}

} // namespace

#define WITH_ROUNDING(T, expression)                                                                         \
    {                                                                                                        \
        const RoundingScope scope(mode);                                                                     \
        return opaque<T>(expression);                                                                        \
    }

float add(float a, float b, Rounding mode) WITH_ROUNDING(float, opaque(a) + opaque(b)) float multiply(
    float a, float b,
    Rounding mode) WITH_ROUNDING(float, opaque(a) * opaque(b)) float divide(float a, float b, Rounding mode)
    WITH_ROUNDING(float, opaque(a) / opaque(b)) float square_root(float a, Rounding mode) WITH_ROUNDING(
        float, std::sqrt(opaque(a))) float multiply_add(float a, float b, float c, Rounding mode)
        WITH_ROUNDING(float, std::fma(opaque(a), opaque(b), opaque(c))) double add(double a, double b,
                                                                                   Rounding mode)
            WITH_ROUNDING(double, opaque(a) + opaque(b)) double multiply(double a, double b, Rounding mode)
                WITH_ROUNDING(double, opaque(a) * opaque(b)) double divide(double a, double b, Rounding mode)
                    WITH_ROUNDING(double, opaque(a) / opaque(b)) double square_root(double a, Rounding mode)
                        WITH_ROUNDING(double, std::sqrt(opaque(a))) double multiply_add(double a, double b,
                                                                                        double c,
                                                                                        Rounding mode)
                            WITH_ROUNDING(double, std::fma(opaque(a), opaque(b),
                                                           opaque(c))) float to_float(double x, Rounding mode)
                                WITH_ROUNDING(float, float(opaque(x))) float to_float(s64 x, Rounding mode)
                                    WITH_ROUNDING(float, float(opaque(x))) float to_float(u64 x,
                                                                                          Rounding mode)
                                        WITH_ROUNDING(float, float((long double)opaque(x))) double to_double(
                                            s64 x, Rounding mode)
                                            WITH_ROUNDING(double,
                                                          double(opaque(x))) double to_double(u64 x,
                                                                                              Rounding mode)
                                                WITH_ROUNDING(double, double((long double)opaque(x)))

                                                    double to_integral(double x, Rounding mode) {
    switch (mode) {
    case rn:
        return std::nearbyint(x);
    case rz:
        return std::trunc(x);
    case rm:
        return std::floor(x);
    default:
        return std::ceil(x);
    }
}

float f16_to_float(u16 x) {
    const u32 sign = u32(x & 0x8000) << 16, exponent = x >> 10 & 31, fraction = x & 0x3ff;
    if (exponent == 31)
        return as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0)
        return (sign ? -1.0f : 1.0f) * float(fraction) * 0x1p-24f;
    return as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

u16 to_f16(long double x, Rounding mode) { return to_16_bits(x, 10, -14, mode); }
u16 to_bf16(long double x, Rounding mode) { return to_16_bits(x, 7, -126, mode); }

double fused_for_16_bits(double a, double b, double c) {
    const double product = a * b, sum = product + c;
    if (!std::isfinite(sum))
        return sum;
    // What the addition lost (Knuth's two-sum) makes the last bit odd, so that the sum is never taken for a
    // tie.
    const double of_c = sum - product, lost = (product - (sum - of_c)) + (c - of_c);
    if (lost == 0 || bits(sum) & 1)
        return sum;
    return std::nextafter(sum, lost > 0 ? INFINITY : -INFINITY);
}
