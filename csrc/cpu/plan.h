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
#include "problem.h"

namespace fqvae {

// Prepares one codebook. If the bounded scorer serves it, its gaps are narrow, and `rows` are many enough to
// pay for it, then its posterior is worth tabulating, from some way below the lowest code to as far above the
// highest. The interpolation's error is below 2e-7 (KL) and 1e-6 (gradients).
template <class Real>
Codebook plan_codebook(const Real *codes, int count, double temperature, int64_t rows, Real *scaled) {
    constexpr int64_t rows_per_node = 16;
    Codebook book{};
    book.given = codes;
    const auto [low, high] = std::minmax_element(codes, codes + count);
    book.lowest = *low;
    book.highest = *high;
    bool finite = true;
    for (int k = 0; k < count; ++k)
        finite = finite && std::isfinite(codes[k]);
    const double bucket = (book.highest - book.lowest) / kBuckets;
    if (sizeof(Real) == 8 || !finite || !(bucket > 0))
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
    explicit PlanStorage(const Problem &problem)
        : numbers_(static_cast<size_t>(problem.codes)), codebooks_(static_cast<size_t>(problem.codebooks)) {
        for (size_t k = 0; k < numbers_.size(); ++k)
            numbers_[k] = static_cast<uint32_t>(k);
        const auto *codes = static_cast<const Real *>(problem.codebook);
        scaled_.resize(sizeof(Real) == 8 ? 0 : numbers_.size() * codebooks_.size());
        for (size_t j = 0; j < codebooks_.size(); ++j)
            codebooks_[j] = plan_codebook(codes + j * numbers_.size(), problem.codes, problem.temperature,
                                          problem.is_logits ? 0 : problem.rows / problem.codebooks,
                                          scaled_.data() + (scaled_.empty() ? 0 : j * numbers_.size()));
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
    std::vector<Real> scaled_, posterior_;
};

} // namespace fqvae
