// A parallel loop on the threads that PyTorch already has.
#pragma once

#include <cstdint>
#include <functional>

namespace fqvae {

// Runs body(chunk, worker) for every chunk, on at most `threads` workers. Chunks are handed out in order, one
// at a time; worker numbers lie in [0, threads). body must not throw.
void parallel_for(int64_t chunks, int threads, const std::function<void(int64_t chunk, int worker)> &body);

// "gomp": the OpenMP runtime that is in the process, PyTorch's. "std::thread": there is none, or this is a
// forked process, which cannot use it.
const char *threading_runtime();

} // namespace fqvae
