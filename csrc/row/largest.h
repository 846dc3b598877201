// The largest of a row's given logits: the others count by their distance from it (score.h).
#pragma once

#include <cmath>

#include "platform.h"

namespace fqvae {

// Logits are added in the order of their codes, and then it is finished. A row with NaN, +inf or nothing but
// -inf is not usable.
template <class L> struct LargestLogit {
    typename L::F logit;
    typename L::U index; // the first code that has it
    typename L::M usable;

    FQVAE_INLINE LargestLogit()
        : logit(L::set(-static_cast<typename L::Real>(INFINITY))), index(L::set_word(0)),
          usable(L::less(logit, L::set(0))) {}

    FQVAE_INLINE void add(typename L::F x, uint32_t number) {
        usable = usable & L::less(x, L::set(static_cast<typename L::Real>(INFINITY))); // neither NaN nor +inf
        index = L::select(L::less(logit, x), L::set_word(number), index);
        logit = L::max(x, logit);
    }

    FQVAE_INLINE void finish() {
        usable = usable & L::less(L::set(-static_cast<typename L::Real>(INFINITY)), logit);
        logit = L::select(usable, logit, L::set(0));
    }
};

} // namespace fqvae
