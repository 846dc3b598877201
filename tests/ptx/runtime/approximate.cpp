#include "approximate.h"
#include "launch.h"

#include <cfenv>
#include <cmath>
#include <cstring>

namespace {

// -1, 0 or 1, times the jitter. The ends of an error bound are what shows a weakness; 0 keeps neighbours
// apart. It depends on the argument, the instruction and the seed alone: hardware, too, gives the same result
// for the same argument every time, and a backward pass may count on it.
double direction(double x, u32 instruction) {
    if (options.jitter == 0)
        return 0;
    u64 bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits ^ (options.seed + instruction)) * 0x9E3779B97F4A7C15u;
    bits = (bits ^ bits >> 29) * 0xBF58476D1CE4E5B9u;
    return options.jitter * (double((bits ^ bits >> 32) % 3) - 1);
}
enum Instruction : u32 { ex2, lg2, rcp, sqrt_, rsqrt, sin_, cos_, tanh_, div_ };

double ulp(double x) {
    const int exponent = x == 0 ? -126 : std::ilogb(x);
    return std::ldexp(1.0, (exponent < -126 ? -126 : exponent) - 23);
}

// A float32 as far as `error` from the exact value, and no farther than that after rounding.
float moved(double exact, double error) {
    if (error == 0 || !std::isfinite(float(exact)))
        return float(exact);
    const float result = float(exact + error);
    if (std::fabs(double(result) - exact) <= std::fabs(error))
        return result;
    const float nearer = std::nextafter(result, float(exact));
    return std::fabs(double(nearer) - exact) <= std::fabs(error) ? nearer : float(exact);
}

float moved_by_ulps(double exact, double ulps, double direction) {
    return moved(exact, direction * ulps * ulp(exact));
}
float moved_relatively(double exact, double error, double direction) {
    return moved(exact, direction * error * exact);
}

const double sine_error = 0x1p-20 * 0.5358867312681466; // 2^-20.9

} // namespace

float ex2_approx(float x) { // 2^0 is exactly 1
    return moved_by_ulps(std::exp2(double(x)), 2, x == 0 ? 0 : direction(x, ex2));
}

float lg2_approx(float x) {
    const double exact = std::log2(double(x)), way = direction(x, lg2);
    return x > 0.5f && x < 2.0f ? moved(exact, way * 0x1p-22) : moved_relatively(exact, 0x1p-22, way);
}

float rcp_approx(float x) { return moved_by_ulps(1.0 / double(x), 1, direction(x, rcp)); }
float sqrt_approx(float x) { return moved_relatively(std::sqrt(double(x)), 0x1p-23, direction(x, sqrt_)); }
float rsqrt_approx(float x) {
    return moved_relatively(1.0 / std::sqrt(double(x)), std::exp2(-22.9), direction(x, rsqrt));
}
float sin_approx(float x) { return moved(std::sin(double(x)), direction(x, sin_) * sine_error); }
float cos_approx(float x) { return moved(std::cos(double(x)), direction(x, cos_) * sine_error); }
float tanh_approx(float x) { return moved_relatively(std::tanh(double(x)), 0x1p-11, direction(x, tanh_)); }
float div_full(float a, float b) {
    const double exact = double(a) / double(b);
    return moved_by_ulps(exact, 2, direction(exact, div_));
}

float div_approx(float a, float b) {
    const float size = std::fabs(b);
    if (size > 0x1p126f && std::isfinite(size) && a == a)
        return std::isinf(a) ? NAN : std::copysign(0.0f, std::signbit(a) == std::signbit(b) ? 1.0f : -1.0f);
    return div_full(a, b);
}

double ex2_approx_f16(double x) { return std::exp2(x) * (1 + direction(x, ex2) * std::exp2(-9.9)); }
double tanh_approx_f16(double x) { return std::tanh(x) * (1 + direction(x, tanh_) * std::exp2(-10.987)); }
double ex2_approx_bf16(double x) { return std::exp2(x) * (1 + direction(x, ex2) * 0x1p-7); }
double tanh_approx_bf16(double x) { return std::tanh(x) * (1 + direction(x, tanh_) * 0x1p-8); }
