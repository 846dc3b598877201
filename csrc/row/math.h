// Logarithm and exponential to base 2 on float lanes: the portable versions. Coefficients: weighted minimax
// fits (Lawson's iteration on Chebyshev nodes); the errors stated are those of the polynomials.
#pragma once

#include "platform.h"

namespace fqvae {

// What the stages' loops take with them: on lane types with tables, the tables in registers. These are the
// ones without.
template <class L> struct PolynomialFunctions {
    struct Log2 { // of a positive number, with relative accuracy as it goes to 1
        FQVAE_INLINE typename L::F operator()(typename L::F x) const { return L::log2(x, L::set(0)); }
    };
    struct AddLog2 { // a b + log2|x|, to within 1e-6 or so: it is added to costs and need not be better
        FQVAE_INLINE typename L::F operator()(typename L::F a, typename L::F b, typename L::F x) const {
            return L::fma(a, b, L::log2(L::magnitude(x), L::set(0)));
        }
    };
    struct Exp2 { // for x <= 127, exactly 1 at 0 and 0 below -126
        FQVAE_INLINE typename L::F operator()(typename L::F x) const { return L::exp2(x); }
        template <int Count>
        FQVAE_INLINE void together(const typename L::F (&x)[Count], typename L::F (&y)[Count]) const {
            FQVAE_UNROLL
            for (int i = 0; i < Count; ++i)
                y[i] = (*this)(x[i]);
        }
    };
};

// log2(x) - below for positive normal x and whole `below`. The mantissa is centred on 1, so that the result
// keeps its relative accuracy as x goes to 1: there the logarithm of a uniform number decides the winner.
// Relative error 2.7e-8 before rounding.
template <class L> FQVAE_INLINE typename L::F log2_polynomial(typename L::F x, typename L::F below) {
    typename L::F exponent, mantissa;
    L::split(x, exponent, mantissa);
    auto f = mantissa - L::set(1.0f);
    auto p = L::set(0.07806666940450668f);
    p = L::fma(p, f, L::set(-0.1742301732301712f));
    p = L::fma(p, f, L::set(0.21632486581802368f));
    p = L::fma(p, f, L::set(-0.2427235245704651f));
    p = L::fma(p, f, L::set(0.2881914973258972f));
    p = L::fma(p, f, L::set(-0.36057591438293457f));
    p = L::fma(p, f, L::set(0.4809020757675171f));
    p = L::fma(p, f, L::set(-0.7213484644889832f));
    p = L::fma(p, f, L::set(1.4426950216293335f));
    return L::fma(p, f, exponent - below);
}

// 2^x for x <= 127, exactly 1 at 0 and exactly 0 below -126: a weight too small to matter is no denormal
// number, and 0 times a far code stays 0. Relative error 9.2e-8 before rounding.
template <class L> FQVAE_INLINE typename L::F exp2_polynomial(typename L::F x) {
    const auto magic =
        L::set(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer, found in the low bits
    auto clamped = L::max(x, L::set(-126.0f));
    auto sum = clamped + magic;
    auto f = clamped - (sum - magic);
    auto p = L::set(0.001326472731307149f);
    p = L::fma(p, f, L::set(0.009671512991189957f));
    p = L::fma(p, f, L::set(0.05550733581185341f));
    p = L::fma(p, f, L::set(0.24022242426872253f));
    p = L::fma(p, f, L::set(0.6931470036506653f));
    p = L::fma(p, f, L::set(1.0f));
    return L::select(L::less(x, L::set(-126.0f)), L::set(0.0f), L::scale(p, sum));
}

} // namespace fqvae
