// Groups of rows, one row to a lane: where they lie, how they are numbered, and what stands around a row's
// program.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../row/backward.h"
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

// The largest of each row's given logits and its code; a row with NaN, +inf or nothing but -inf is not
// usable.
template <class L> struct LargestLogit {
    typename L::F logit, code;
    typename L::M usable;
};

template <class L>
LargestLogit<L> largest_logit(const Problem &problem, const typename L::Real *codes, const Rows &rows,
                              Tile<L> &tile) {
    const auto infinity = L::set(static_cast<typename L::Real>(__builtin_inf()));
    LargestLogit<L> found{L::set(0) - infinity, L::set(codes[0]), L::less(L::set(0), infinity)};
    for (int first = 0; first < problem.codes; first += L::tile_codes) {
        const int count = std::min(problem.codes - first, L::tile_codes);
        Memory<L>::load_tile(problem.input, problem.dtype, rows, problem.codes, first, count, tile.given);
        for (int k = 0; k < count; ++k) {
            const auto x = L::load(tile.given + k * L::width);
            found.usable = found.usable & L::less(x, infinity);
            found.code = L::select(L::less(found.logit, x), L::set(codes[first + k]), found.code);
            found.logit = L::max(x, found.logit);
        }
    }
    found.usable = found.usable & L::less(L::set(0) - infinity, found.logit);
    found.logit = L::select(found.usable, found.logit, L::set(0));
    return found;
}

// Chooses the scorer of a group and calls run(scorer, reference, load_tile). Rows that are not usable are
// scored as if their z or all their logits were 0, so that everything stays finite.
template <class L, class Run>
FQVAE_INLINE void with_scorer(const Problem &problem, const Plan &plan, const Codebook &codebook,
                              const Rows &rows, Tile<L> &tile, Run run) {
    using Real = typename L::Real;
    const auto zero = L::set(0), two = L::set(2);
    const auto no_tile = [](int, int) {};
    const auto *given = static_cast<const Real *>(codebook.given);

    if (problem.is_logits) {
        const auto largest = largest_logit<L>(problem, given, rows, tile);
        const LogitScorer<L> scorer{given, largest.logit, largest.code, tile.given};
        run(scorer, Reference<L>{largest.code, largest.usable, zero}, [&](int first, int count) {
            Memory<L>::load_tile(problem.input, problem.dtype, rows, problem.codes, first, count, tile.given);
            mask_tile<L>(tile.given, count, largest.usable, 0);
        });
        return;
    }

    const Finite<L> finite(Memory<L>::load(problem.input, problem.dtype, rows));
    const auto lowest = static_cast<Real>(codebook.lowest), highest = static_cast<Real>(codebook.highest);
    if (codebook.bounds.bounded) {
        const auto *codes = static_cast<const Real *>(codebook.scaled);
        const BoundedPlace<L> place(finite.z, codebook.bounds_in<Real>(), lowest, highest);
        const Reference<L> row{place.point, finite.usable, place.x};
        if (!L::any(place.outside))
            run(BoundedScorer<L, true>{codes, place.reference, zero}, row, no_tile);
        else
            run(BoundedScorer<L, false>{codes, place.reference, place.excess * two}, row, no_tile);
    } else {
        NearestCode<L> nearest(given[0]);
        nearest_row<L>(CodeRange::all<L>(problem.codes), given, L::numbers(plan.numbers),
                       clamp<L>(finite.z, L::set(lowest), L::set(highest)), nearest);
        const auto far = L::set(static_cast<Real>(kFarExactExcess));
        const auto excess = clamp<L>(finite.z - nearest.code, zero - far, far);
        run(ExactScorer<L>{given, nearest.code, excess * two},
            Reference<L>{nearest.code, finite.usable, zero}, no_tile);
    }
}

} // namespace
} // namespace fqvae
