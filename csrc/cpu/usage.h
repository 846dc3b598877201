// How often each code was taken.
#pragma once

#include <vector>

#include "counts.h"

namespace fqvae {

// A table (latents, codes), to which several workers add.
class Usage {
  public:
    Usage(int64_t *table, int64_t latents, int64_t codes);

    // Whether each worker can have a table of its own; a larger one is counted in by one thread, afterwards.
    bool is_small() const { return latents_ * codes_ <= 65536; }

    // Between begin and end each worker adds to its own counts.
    void begin(int64_t rows, int workers);
    Counts of(int worker);
    void end();

    // All of it, for indices that are there already. An index outside [0, codes) counts nothing.
    void count(const int64_t *indices, int64_t rows, int threads);

  private:
    int64_t *table_, latents_, codes_;
    std::vector<int64_t> places_;
    bool four_ = false;
    std::vector<std::vector<int64_t>> own_; // of a worker; empty for one that adds to the table itself
};

} // namespace fqvae
