// How a call will be computed: decided from the codebook, the temperature and the number of rows, never from
// the rows themselves or the number of threads. What a row samples depends on the first two alone; the number
// of rows decides only whether their KL is tabulated, which changes its last bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../row/bounds.h"
#include "../row/posterior.h"
#include "kernel_table.h"

namespace fqvae {

template <class Real> bool all_finite(const Real *codes, size_t count) {
    return std::all_of(codes, codes + count, [](Real code) { return std::isfinite(code); });
}

// Prepares one codebook. If the bounded scorer serves it, its gaps are narrow, and `rows` are many enough to
// pay for it, then its posterior is worth tabulating, from some way below the lowest code to as far above the
// highest. The interpolation's error is below 2e-7 (KL) and 1e-6 (gradients).
//
// zeros: as many as there are codes, which stand for a codebook that is not finite; or null if all are.
template <class Real>
Codebook plan_codebook(const Real *codes, int count, double temperature, int64_t rows, Real *scaled,
                       const Real *zeros) {
    constexpr int64_t rows_per_node = 16;
    Codebook book{};
    book.finite = all_finite(codes, static_cast<size_t>(count));
    book.given = codes = book.finite ? codes : zeros;
    const auto [low, high] = std::minmax_element(codes, codes + count);
    book.lowest = *low;
    book.highest = *high;
    const double bucket = (book.highest - book.lowest) / kBuckets;
    if (sizeof(Real) == 8 || !(bucket > 0))
        return book;

    uint64_t occupied = 0;
    for (int k = 0; k < count; ++k)
        occupied |= uint64_t(1) << bucket_of<double>(codes[k], book.lowest, bucket);
    const double gap = largest_gap(occupied, bucket);
    book.bounds = bounds_of<double>(book.lowest, book.highest, gap, std::log2(count), temperature);
    if (!book.bounds.bounded)
        return book;
    const auto bounds = book.bounds_in<Real>();
    book.scaled = scaled;
    for (int k = 0; k < count; ++k)
        scaled[k] = bounds.scaled(codes[k]);

    const TableExtent<double> table(bounds.scaled(*low), bounds.scaled(*high));
    book.posterior_first = table.first;
    if (gap <= kWidestTabulatedGap && rows >= rows_per_node * table.nodes)
        book.posterior_nodes = table.nodes;
    return book;
}

// Owns what a Plan points to.
template <class Real> class PlanStorage {
  public:
    // with_kl: the KL or its gradient is wanted, and may be worth a table.
    PlanStorage(const Call &call, bool with_kl)
        : numbers_(static_cast<size_t>(call.codes) + 1), codebooks_(static_cast<size_t>(call.codebooks)) {
        for (size_t k = 0; k < numbers_.size(); ++k)
            numbers_[k] = static_cast<uint32_t>(k);
        const auto *codes = static_cast<const Real *>(call.codebook);
        const auto count = static_cast<size_t>(call.codes);
        scaled_.resize(sizeof(Real) == 8 ? 0 : count * codebooks_.size());
        zeros_.resize(all_finite(codes, count * codebooks_.size()) ? 0 : count);
        for (size_t j = 0; j < codebooks_.size(); ++j)
            codebooks_[j] = plan_codebook(codes + j * count, call.codes, call.temperature,
                                          call.is_logits || !with_kl ? 0 : call.rows / call.codebooks,
                                          scaled_.data() + (scaled_.empty() ? 0 : j * count), zeros_.data());
        plan = {codebooks_.data(), numbers_.data()};
    }

    PlanStorage(const PlanStorage &) = delete;
    PlanStorage &operator=(const PlanStorage &) = delete;

    // Of a global codebook, if the plan is for it.
    void tabulate_posterior(const Kernels &kernels, int codes) {
        Codebook &book = codebooks_.front();
        if (codebooks_.size() > 1 || book.posterior_nodes == 0)
            return;
        posterior_.resize(static_cast<size_t>(book.posterior_nodes) * kPosteriorColumns);
        book.posterior = posterior_.data();
        kernels.tabulate(book, codes);
    }
    Plan plan;

  private:
    std::vector<uint32_t> numbers_;
    std::vector<Codebook> codebooks_;
    std::vector<Real> scaled_, zeros_, posterior_;
};

} // namespace fqvae
