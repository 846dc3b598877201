// The CPU backend: picks the kernels of the best instruction set that this processor has, and splits the rows
// over threads.
#pragma once

#include <string>
#include <vector>

#include "kernel_table.h"
#include "usage.h"

namespace fqvae {

std::vector<std::string> instruction_sets();       // compiled in and supported by the processor, best first
std::string instruction_set();                     // the one in use
void use_instruction_set(const std::string &name); // throws std::invalid_argument if it cannot run here

void forward(const Call &call, const Outputs &out, int threads);
// Of kNearest, which is to give indices: adds them to `usage`.
void forward_counted(const Call &call, const Outputs &out, Usage &usage, int threads);
void backward(const Call &call, const BackwardArguments &args, int threads);
void gumbel_noise(uint64_t seed, uint64_t first_row, int64_t rows, int codes, bool is_double, void *out,
                  int threads);
void gumbel_from_words(const uint32_t *words, int64_t count, bool is_double, void *out);
void philox_words(uint64_t seed, uint64_t first_row, int64_t rows, int codes, uint32_t *out, int threads);
uint32_t philox_floor(uint64_t seed, int64_t rows, int codes, int threads);

} // namespace fqvae
