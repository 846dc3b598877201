// The reference of a row (score.h): the point from which its codes are seen.
#pragma once

#include <cmath>

#include "bounds.h"

namespace fqvae {

template <class L> FQVAE_INLINE typename L::F clamp(typename L::F x, typename L::F low, typename L::F high) {
    return L::max(L::min(x, high), low);
}

// z, or 0 where it is NaN or infinite: such rows are computed too, but nothing comes of it.
template <class L> struct Finite {
    typename L::F z;
    typename L::M usable;

    FQVAE_INLINE explicit Finite(typename L::F any) {
        const auto zero = L::set(0);
        usable = L::less(L::max(any, zero - any), L::set(static_cast<typename L::Real>(INFINITY)));
        z = L::select(usable, any, zero);
    }
};

template <class L> struct Reference {
    typename L::F point;  // in the codebook's own units
    typename L::M usable; // true: the row's z, or its logits, give a result
    typename L::F x;      // of bounded scorers: z, centred and scaled
};

// How a row stands to a codebook that the bounded scorer serves, in scaled units.
template <class L> struct BoundedPlace {
    using F = typename L::F;
    F x;                 // z
    F reference, excess; // z again and 0, or the end of the codebook that is next to z and the rest
    F point;             // the reference in the codebook's own units
    typename L::M outside;

    FQVAE_INLINE BoundedPlace(F z, const Bounds<typename L::Real> &bounds, typename L::Real lowest,
                              typename L::Real highest) {
        using Real = typename L::Real;
        const F far = L::set(static_cast<Real>(kFarExcess)), zero = L::set(0);
        x = (z - L::set(bounds.centre)) * L::set(static_cast<Real>(kLengthScale));
        const F end = clamp<L>(x, L::set(bounds.scaled(lowest)), L::set(bounds.scaled(highest)));
        const F beyond = clamp<L>(x - end, zero - far, far);
        outside = L::less(L::set(bounds.reach), L::max(beyond, zero - beyond));
        reference = L::select(outside, end, x);
        excess = L::select(outside, beyond, zero);
        point = L::select(outside, clamp<L>(z, L::set(lowest), L::set(highest)), z);
    }
};

// The excess of a z whose reference is its nearest code.
template <class L> FQVAE_INLINE typename L::F exact_excess(typename L::F z, typename L::F nearest) {
    const auto far = L::set(static_cast<typename L::Real>(kFarExactExcess));
    return clamp<L>(z - nearest, L::set(0) - far, far);
}

} // namespace fqvae
