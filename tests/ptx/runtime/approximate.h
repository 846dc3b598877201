// The approximate instructions. Without jitter: the exact value, rounded once, which is better than hardware.
// With jitter: off by the error that the PTX ISA documents, times the jitter, up, down or not at all, as the
// argument and the seed have it.
#pragma once
#include "types.h"

float ex2_approx(float x);   // 2 ulp
float lg2_approx(float x);   // 2^-22 absolute in (0.5, 2), relative elsewhere
float rcp_approx(float x);   // 1 ulp
float sqrt_approx(float x);  // 2^-23 relative
float rsqrt_approx(float x); // 2^-22.9 relative
float sin_approx(float x);   // 2^-20.9 absolute in [-pi, pi]; undocumented outside, here the same
float cos_approx(float x);
float tanh_approx(float x);         // 2^-11 relative
float div_approx(float a, float b); // 2 ulp; 0 for 2^126 < |b| < 2^128
float div_full(float a, float b);   // 2 ulp

// To 16 bits, given and returned as a number; the caller rounds. 2^-9.9 and 2^-10.987 relative for f16.
double ex2_approx_f16(double x);
double tanh_approx_f16(double x);
double ex2_approx_bf16(double x);  // 2^-7 relative
double tanh_approx_bf16(double x); // 2^-8 relative
