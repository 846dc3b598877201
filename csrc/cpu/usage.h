// How often each code was taken.
#pragma once

#include <cstdint>

namespace fqvae {

// Adds to table (latents, codes) the codes that indices (rows,) name; row i is of latent i mod latents. An
// index outside [0, codes) counts nothing.
void count_codes(const int64_t *indices, int64_t rows, int64_t latents, int64_t codes, int64_t *table,
                 int threads);

} // namespace fqvae
