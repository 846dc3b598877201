// What a forward pass leaves of a row: only what is asked for.
#pragma once

#include "../row/finish.h"
#include "block.h"

namespace fqvae {

// kl_bits, gives_code: as finish_row takes them.
template <class Scorer, class Real, bool Resident>
__device__ __forceinline__ void store_row(const ForwardArguments &args, const Block<Real, Resident> &block,
                                          int64_t row, const Reference<DeviceLanes<Real>> &reference,
                                          const RowStats<DeviceLanes<Real>> &stats, Real kl_bits,
                                          bool gives_code) {
    using L = DeviceLanes<Real>;
    const Call &call = args.call;
    const auto found = finish_row<L, Scorer>(reference, stats, kl_bits, static_cast<Real>(call.ln_codes),
                                             gives_code, [&](uint32_t index) { return block.given(index); });
    if (args.out.quantized)
        store_value(args.out.quantized, call.dtype, row, found.quantized);
    if (args.out.indices)
        args.out.indices[row] = stats.index;
    if (args.out.kl)
        static_cast<Real *>(args.out.kl)[row] = found.kl;
}

} // namespace fqvae
