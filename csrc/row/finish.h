// The two ends of a row's program: what a row gives its caller, and what it lets through of the gradients
// that come back. A platform only stores the one and loads the other.
#pragma once

#include <cmath>

#include "reference.h"
#include "stats.h"

namespace fqvae {

// What a row gives that is not usable.
template <class Real> FQVAE_INLINE Real no_value() { return static_cast<Real>(NAN); }

template <class L> FQVAE_INLINE typename L::F value_or_nan(typename L::M usable, typename L::F x) {
    return L::select(usable, x, L::set(no_value<typename L::Real>()));
}

template <class L> struct RowOutputs {
    typename L::F quantized, kl;
};

// kl_bits: sum of q log2 q. ln_codes: ln K. gives_code: quantized is given_code(index), exactly as it came,
// else the mean of the codes under w.
template <class L, class Scorer, class GivenCode>
FQVAE_INLINE RowOutputs<L> finish_row(const Reference<L> &reference, const RowStats<L> &stats,
                                      typename L::F kl_bits, typename L::Real ln_codes, bool gives_code,
                                      GivenCode given_code) {
    using Real = typename L::Real;
    const auto to_length = L::set(static_cast<Real>(1 / Scorer::kOffsetScale));
    const auto quantized =
        gives_code ? given_code(stats.index) : L::fma(stats.mean_offset, to_length, reference.point);
    const auto kl = L::fma(kl_bits, L::set(static_cast<Real>(kLn2)), L::set(ln_codes));
    return {value_or_nan<L>(reference.usable, quantized),
            value_or_nan<L>(reference.usable, L::max(kl, L::set(0)))};
}

// The gradients that reach a row. Lanes without a row carry zeros.
template <class L> struct RowIncoming {
    typename L::F quantized;     // a
    typename L::F kl;            // h
    typename L::F chosen_weight; // v[index]: v is seen from there, as the codes are from the reference
    bool weights;                // there is a v, in tile.grad_weights
    typename L::F direct; // a again, or 0 where quantized is a code: the caller adds all of a to that one
    typename L::F weights_mean; // sum of w (v - v[index]), which weights_mean_row finds

    // quantized, kl, chosen_weight: as they came. Nothing flows into rows that are not usable.
    FQVAE_INLINE RowIncoming(typename L::F quantized, typename L::F kl, typename L::F chosen_weight,
                             bool weights, typename L::M usable, bool gives_code)
        : quantized(L::select(usable, quantized, L::set(0))), kl(L::select(usable, kl, L::set(0))),
          chosen_weight(L::select(usable, chosen_weight, L::set(0))), weights(weights),
          direct(gives_code ? L::set(0) : this->quantized), weights_mean(L::set(0)) {}
};

} // namespace fqvae
