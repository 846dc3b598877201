#include "usage.h"

#include <algorithm>

#include "parallel.h"

namespace fqvae {

Usage::Usage(int64_t *table, int64_t latents, int64_t codes)
    : table_(table), latents_(latents), codes_(codes),
      places_(static_cast<size_t>(latents) + Counts::kAhead) {
    for (size_t i = 0; i < places_.size(); ++i)
        places_[i] = static_cast<int64_t>(i) % latents * codes;
}

void Usage::begin(int64_t rows, int workers) {
    four_ = latents_ == 1 && rows >= 16 * codes_; // else making and adding them up costs more than it saves
    own_.assign(static_cast<size_t>(workers), {});
    for (size_t i = four_ ? 0 : 1; i < own_.size(); ++i)
        own_[i].resize(static_cast<size_t>(latents_ * codes_ * (four_ ? 4 : 1)));
}

Counts Usage::of(int worker) {
    auto &own = own_[static_cast<size_t>(worker)];
    return {own.empty() ? table_ : own.data(), places_.data(), latents_, codes_, four_};
}

void Usage::end() {
    const auto size = static_cast<size_t>(latents_ * codes_);
    for (const auto &own : own_)
        for (size_t i = 0; i < own.size(); ++i)
            table_[i % size] += own[i];
}

void Usage::count(const int64_t *indices, int64_t rows, int threads) {
    constexpr int64_t kRows = 131072; // worth handing to another thread
    const int64_t chunks = is_small() ? (rows + kRows - 1) / kRows : 1;
    const int64_t size = is_small() ? kRows : rows;
    const int workers = static_cast<int>(std::clamp<int64_t>(chunks, 1, std::max(threads, 1)));
    begin(is_small() ? rows : 0, workers);
    parallel_for(chunks, workers, [&](int64_t number, int worker) {
        const int64_t first = number * size;
        of(worker).add<true>(indices, first, 1, std::min(size, rows - first));
    });
    end();
}

} // namespace fqvae
