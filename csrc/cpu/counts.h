// Counting the codes of a few rows, within a kernel or without.
#pragma once

#include <cstdint>

#include "../row/platform.h"

namespace fqvae {

// Where one worker counts. Row i is of latent i mod latents, whose counts begin at places[i mod latents];
// kAhead places more begin anew, so that as many rows take only one division. Rows of one latent go into four
// tables in turn if there are four: a count that is met again at once would wait for itself.
struct Counts {
    static constexpr int kAhead = 16;

    int64_t *tables = nullptr; // null: nobody counts
    const int64_t *places = nullptr;
    int64_t latents = 1, codes = 0;
    bool four = false;

    // `count` rows from `first` on, `stride` apart, which is 1 or latents. kChecked: an index outside [0,
    // codes) counts nothing; else there is none.
    template <bool kChecked>
    FQVAE_INLINE void add(const int64_t *indices, int64_t first, int64_t stride, int64_t count) const {
        indices += first;
        if (latents == 1 || stride != 1) {
            int64_t *table = tables + (latents == 1 ? 0 : places[first % latents]);
            const int64_t apart = four ? codes : 0;
            for (int64_t i = 0; i < count; ++i)
                add_one<kChecked>(table + (i & 3) * apart, indices[i * stride]);
            return;
        }
        for (int64_t begin = 0; begin < count; begin += kAhead) {
            const int64_t *place = places + (first + begin) % latents, *index = indices + begin;
            const int64_t rows = count - begin < kAhead ? count - begin : kAhead;
            for (int64_t i = 0; i < rows; ++i)
                add_one<kChecked>(tables + place[i], index[i]);
        }
    }

  private:
    template <bool kChecked> FQVAE_INLINE void add_one(int64_t *table, int64_t index) const {
        if (!kChecked || static_cast<uint64_t>(index) < static_cast<uint64_t>(codes))
            ++table[index];
    }
};

} // namespace fqvae
