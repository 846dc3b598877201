// Groups of rows, one row to a lane: where they lie, how they are numbered, and what stands around a row's
// program.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../row/backward.h"
#include "../row/largest.h"
#include "../row/nearest.h"
#include "../row/reference.h"
#include "memory.h"

namespace fqvae {
namespace {

// Computes the code blocks' side of Philox, unless it is there already.
inline const PhiloxCode *code_keys(Scratch &scratch, int codes, uint32_t n_high, const PhiloxKeys &keys) {
    if (!scratch.keys_ready || scratch.keys_for != n_high) {
        for (int block = 0; 4 * block < codes; ++block)
            scratch.code_keys[block] = PhiloxCode(static_cast<uint32_t>(block), n_high, keys);
        scratch.keys_for = n_high;
        scratch.keys_ready = true;
    }
    return scratch.code_keys;
}

// Splits the rows of one codebook into groups: body(rows, number of the first row). A group ends where the
// high word of the row numbers changes, since its lanes share that word.
template <class L, class Body>
void each_group(Range range, int64_t codebooks, int64_t codebook, uint64_t row_offset, Body body) {
    for (int64_t position = range.begin; position < range.end;) {
        const int64_t first = position * codebooks + codebook;
        const uint64_t number = row_offset + static_cast<uint64_t>(first);
        int64_t count = range.end - position < L::width ? range.end - position : L::width;
        const uint64_t stride = static_cast<uint64_t>(codebooks), last = number + (L::width - 1) * stride;
        if (last >> 32 != number >> 32) {
            const auto same_high = static_cast<int64_t>((0xffffffffu - (number & 0xffffffffu)) / stride + 1);
            count = same_high < count ? same_high : count;
        }
        body(Rows{first, codebooks, static_cast<int>(count)}, number);
        position += count;
    }
}

// Puts `otherwise` into the lanes of rows that are not usable.
template <class L>
void mask_tile(typename L::Real *tile, int count, typename L::M usable, typename L::Real otherwise) {
    if (L::all(usable))
        return;
    for (int k = 0; k < count; ++k)
        L::store(tile + k * L::width, L::select(usable, L::load(tile + k * L::width), L::set(otherwise)));
}

template <class L> LargestLogit<L> largest_logit(const Call &call, const Rows &rows, Tile<L> &tile) {
    LargestLogit<L> found;
    for (int first = 0; first < call.codes; first += L::tile_codes) {
        const int count = std::min(call.codes - first, L::tile_codes);
        Memory<L>::load_tile(call.input, call.dtype, rows, call.codes, first, count, tile.given);
        for (int k = 0; k < count; ++k)
            found.add(L::load(tile.given + k * L::width), static_cast<uint32_t>(first + k));
    }
    found.finish();
    return found;
}

// Chooses the scorer of a group and calls run(scorer, reference, load_tile). Rows that are not usable are
// computed as if their z or all their logits were 0, so that everything stays finite. No row of a codebook
// that is not finite is usable; plan.h has put zeros in place of its codes.
template <class L, class Run>
FQVAE_INLINE void with_scorer(const Call &call, const Plan &plan, const Codebook &codebook, const Rows &rows,
                              Tile<L> &tile, Run run) {
    using Real = typename L::Real;
    const auto zero = L::set(0), two = L::set(2);
    const auto no_tile = [](int, int) {};
    const auto *given = static_cast<const Real *>(codebook.given);
    const typename L::M finite_codes = L::less(zero, L::set(codebook.finite ? 1 : 0));

    if (call.is_logits) {
        auto largest = largest_logit<L>(call, rows, tile);
        largest.usable = largest.usable & finite_codes;
        largest.logit = L::select(largest.usable, largest.logit, zero);
        // Between codes that lie so far apart that their distance overflows, 0 is the reference.
        const bool close = std::isfinite(static_cast<Real>(codebook.highest - codebook.lowest));
        const auto code = close ? L::gather(given, largest.index) : zero;
        const bool one_tile = call.codes <= L::tile_codes; // which largest_logit has loaded
        const LogitScorer<L> scorer{given, largest.logit, code, tile.given};
        run(scorer, Reference<L>{code, largest.usable, zero}, [&](int first, int count) {
            if (!one_tile)
                Memory<L>::load_tile(call.input, call.dtype, rows, call.codes, first, count, tile.given);
            mask_tile<L>(tile.given, count, largest.usable, 0);
        });
        return;
    }

    Finite<L> finite(Memory<L>::load(call.input, call.dtype, rows));
    finite.usable = finite.usable & finite_codes;
    const auto lowest = static_cast<Real>(codebook.lowest), highest = static_cast<Real>(codebook.highest);
    if constexpr (sizeof(Real) == 4) { // plan.h chooses this scorer for no other
        if (codebook.bounds.bounded) {
            const auto *codes = static_cast<const Real *>(codebook.scaled);
            const BoundedPlace<L> place(finite.z, codebook.bounds_in<Real>(), lowest, highest);
            const Reference<L> reference{place.point, finite.usable, place.x};
            if (!L::any(place.outside))
                return run(BoundedScorer<L, true>{codes, place.reference, zero}, reference, no_tile);
            const BoundedScorer<L, false> far{codes, place.reference, place.excess * two};
            return run(FarScorer<L>{far, given, place.point, place.outside}, reference, no_tile);
        }
    }
    NearestCode<L> nearest(given[0]);
    const auto range = CodeRange::all<L>(call.codes);
    const auto inside = clamp<L>(finite.z, L::set(lowest), L::set(highest));
    nearest_row<L>(range, given, L::numbers(plan.numbers), inside, nearest);
    auto code = nearest.code;
    const auto far = is_to_settle<L>(nearest, inverse_of_temperature<Real>(call.temperature));
    if (L::any(far))
        code = L::select(far, settled_nearest<L>(range, given, inside, code), code);
    run(ExactScorer<L>{given, code, exact_excess<L>(finite.z, code) * two},
        Reference<L>{code, finite.usable, zero}, no_tile);
}

} // namespace
} // namespace fqvae
