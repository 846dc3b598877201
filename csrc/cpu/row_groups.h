// The groups of rows of a range, each with what its program needs.
#pragma once

#include "posterior_table.h"
#include "row_io.h"

namespace fqvae {
namespace {

template <class L> struct Group {
    const Call &call;
    const Codebook &codebook;
    const PosteriorTable<L> &table;
    const CallConstants<L> &constants;
    const PhiloxKeys &keys;
    const PhiloxCode *code_keys;
    Tile<L> &tile;
    Rows rows;
    PhiloxRow<L> philox;

    CodeRange codes() const { return CodeRange::all<L>(call.codes); }
    bool tabulated() const { return codebook.posterior != nullptr; }
    template <class Scorer> FQVAE_INLINE RowContext<L, Scorer> context(const Scorer &scorer) const {
        return {constants, scorer, philox, code_keys, keys, tile};
    }
};

// body(group) for all groups of rows that belong to codebook j. Noise has counters whose second word is 0; of
// the estimators that draw one number a row it is 1.
template <class L, class Body>
void each_row_group(const Call &call, const Plan &plan, const Codebook &codebook, int64_t j, Range range,
                    Scratch &scratch, Body body) {
    const PhiloxKeys keys(call.seed);
    const auto constants = RowIO<L>::constants(call, plan, codebook);
    const PosteriorTable<L> table(codebook);
    auto &tile = *static_cast<Tile<L> *>(scratch.tile);
    const bool noise = call.estimator == Estimator::kGumbel;
    each_group<L>(range, call.codebooks, j, call.row_offset, [&](const Rows &rows, uint64_t number) {
        const auto low = static_cast<uint32_t>(number), high = static_cast<uint32_t>(number >> 32);
        const auto *code = code_keys(scratch, noise ? call.codes : 1, high, keys);
        body(Group<L>{call, codebook, table, constants, keys, code, tile, rows,
                      PhiloxRow<L>(low, static_cast<uint32_t>(rows.stride), keys, noise ? 0 : 1)});
    });
}

} // namespace
} // namespace fqvae
