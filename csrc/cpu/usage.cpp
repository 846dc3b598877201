#include "usage.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace fqvae {
namespace {

// A table of that many counts is kept for each worker; a larger one is counted in by one thread.
constexpr int64_t kMostCounts = 65536;
// Rows that are worth handing to another thread, and few enough for 32-bit counts.
constexpr int64_t kRows = 131072;

// Rows of several latents: neighbours meet different counts.
template <class Count>
void count_positions(const int64_t *indices, int64_t rows, int64_t latents, int64_t codes, Count *table) {
    for (int64_t i = 0; i < rows; i += latents)
        for (int64_t j = 0; j < latents; ++j) {
            const int64_t index = indices[i + j];
            if (static_cast<uint64_t>(index) < static_cast<uint64_t>(codes))
                ++table[j * codes + index];
        }
}

// Rows of one latent, into four tables in turn: a count that is met again at once would wait for itself.
void count_rows(const int64_t *indices, int64_t rows, int64_t codes, uint32_t *tables) {
    const auto add = [&](int64_t i, int turn) {
        const int64_t index = indices[i];
        if (static_cast<uint64_t>(index) < static_cast<uint64_t>(codes))
            ++tables[turn * codes + index];
    };
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4)
        for (int turn = 0; turn < 4; ++turn)
            add(i + turn, turn);
    for (; i < rows; ++i)
        add(i, 0);
}

} // namespace

void count_codes(const int64_t *indices, int64_t rows, int64_t latents, int64_t codes, int64_t *table,
                 int threads) {
    const int64_t size = latents * codes;
    if (size > kMostCounts) {
        count_positions(indices, rows, latents, codes, table);
        return;
    }
    const int64_t chunk = std::max<int64_t>(1, kRows / latents) * latents,
                  chunks = (rows + chunk - 1) / chunk;
    const int workers = static_cast<int>(std::clamp<int64_t>(chunks, 1, std::max(threads, 1)));
    const int tables = latents == 1 ? 4 : 1;
    std::vector<std::vector<uint32_t>> counts(static_cast<size_t>(workers));
    std::vector<std::vector<int64_t>> sums(static_cast<size_t>(workers));
    for (int worker = 0; worker < workers; ++worker)
        sums[static_cast<size_t>(worker)].resize(static_cast<size_t>(size));
    parallel_for(chunks, workers, [&](int64_t number, int worker) {
        auto &mine = counts[static_cast<size_t>(worker)];
        mine.assign(static_cast<size_t>(size * tables), 0);
        const int64_t first = number * chunk, count = std::min(chunk, rows - first);
        if (latents == 1)
            count_rows(indices + first, count, codes, mine.data());
        else
            count_positions(indices + first, count, latents, codes, mine.data());
        auto &sum = sums[static_cast<size_t>(worker)];
        for (int64_t i = 0; i < size; ++i)
            for (int turn = 0; turn < tables; ++turn)
                sum[static_cast<size_t>(i)] += mine[static_cast<size_t>(turn * size + i)];
    });
    for (const auto &sum : sums)
        for (int64_t i = 0; i < size; ++i)
            table[i] += sum[static_cast<size_t>(i)];
}

} // namespace fqvae
