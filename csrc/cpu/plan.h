// How a call will be computed: decided from the codebook, the temperature and the number of rows, never from
// the rows themselves or the number of threads. What a row samples depends on the first two alone; the number
// of rows decides only whether their KL is tabulated, which changes its last bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../row/score.h"
#include "problem.h"

namespace fqvae {

// An upper bound on the distance between neighbouring codes: the range is cut into 64 buckets, and the
// longest run of empty ones is found in the bits of a word.
template <class Real> double largest_gap(const Real *codes, int count, double lowest, double highest) {
    const double bucket = (highest - lowest) / 64;
    if (!(bucket > 0))
        return 0;
    uint64_t occupied = 0;
    for (int k = 0; k < count; ++k)
        occupied |= uint64_t(1) << std::min(63, static_cast<int>((codes[k] - lowest) / bucket));
    int longest = 0;
    uint64_t empty = ~occupied;
    for (; empty != 0; empty &= empty << 1) // each step shortens every run by one
        ++longest;
    return (longest + 2) * bucket;
}

// -log2(-log2 u), the noise in base 2, lies between these.
constexpr double kLowestNoise = -4.6, kHighestNoise = 23.5;

// Prepares one codebook. The bounded scorer serves float codebooks whose range and gaps are moderate, at
// temperatures that are not small: then, with costs shifted by a constant, the largest weight of a row lies
// between 2^-100 and a power of 2 whose sum over all codes, times an offset, is still finite.
//
// If its gaps are narrow besides, and `rows` many enough to pay for it, its posterior is worth tabulating,
// from some way below the lowest code to as far above the highest. The interpolation's error is then below
// 2e-7 (KL) and 1e-6 (gradients).
template <class Real>
Codebook plan_codebook(const Real *codes, int count, double temperature, int64_t rows, Real *scaled) {
    constexpr double widest = 16, widest_gap = 4, widest_tabulated_gap = 1.5, margin = 2.5;
    constexpr int64_t rows_per_node = 16;
    Codebook book{};
    book.given = codes;
    const auto [low, high] = std::minmax_element(codes, codes + count);
    book.lowest = *low;
    book.highest = *high;
    bool finite = true;
    for (int k = 0; k < count; ++k)
        finite = finite && std::isfinite(codes[k]);
    if (sizeof(Real) == 8 || !finite || book.highest - book.lowest > widest || count == 1)
        return book;

    const double gap = largest_gap(codes, count, book.lowest, book.highest);
    const double top = 126 - std::log2(count) - 6; // 2^6 exceeds any scaled offset
    // Offsets, and so their rounding, stay of the codebook's size.
    book.reach = std::min(2.0, book.highest - book.lowest);
    const double lowest = kLowestNoise - std::max(kLog2E * gap * gap / 4, book.reach * book.reach);
    book.bounded = gap <= widest_gap && (kHighestNoise - lowest) / temperature <= top + 100;
    book.shift = top - kHighestNoise / temperature;
    book.shift_below = std::nearbyint(book.shift);
    book.centre = static_cast<Real>((book.lowest + book.highest) / 2);
    book.scaled = scaled;
    for (int k = 0; k < count; ++k)
        scaled[k] = static_cast<Real>((codes[k] - book.centre) * kLengthScale);
    book.scaled_lowest = *std::min_element(scaled, scaled + count);
    book.scaled_highest = *std::max_element(scaled, scaled + count);

    book.posterior_first = std::floor((book.scaled_lowest - margin) / kPosteriorStep) * kPosteriorStep;
    const int nodes =
        static_cast<int>((book.scaled_highest + margin - book.posterior_first) / kPosteriorStep) + 2;
    if (book.bounded && gap <= widest_tabulated_gap && rows >= rows_per_node * nodes)
        book.posterior_nodes = nodes;
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
