// PyTorch brings its own OpenMP runtime (libgomp) and makes its symbols global. Linking another one would set
// two teams of threads against each other on the same cores, so the runtime's entry point is looked up in the
// process instead.
//
// A forked process inherits the runtime's records of its parent's threads, but not the threads: a team would
// wait for them for ever. So it starts threads of its own for each call, without the runtime.
#include "parallel.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace fqvae {
namespace {

using GompParallel = void (*)(void (*)(void *), void *, unsigned, unsigned);

// Whether this process was forked and has executed no program since: bit 0x40, PF_FORKNOEXEC, of the ninth
// number in Linux's /proc/self/stat. The second is the program's name in brackets, which may hold anything.
bool forked_without_exec() {
    unsigned flags = 0;
#if defined(__linux__)
    if (std::FILE *file = std::fopen("/proc/self/stat", "r")) {
        char text[512];
        text[std::fread(text, 1, sizeof text - 1, file)] = 0;
        std::fclose(file);
        if (const char *name_end = std::strrchr(text, ')'))
            std::sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags);
    }
#endif
    return (flags & 0x40u) != 0;
}

// Whether the OpenMP runtime may have records of threads that live in another process.
std::atomic<bool> forked{forked_without_exec()};
#if !defined(_WIN32)
[[maybe_unused]] const int watch =
    pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
#endif

GompParallel gomp_parallel() {
#if defined(_WIN32)
    return nullptr;
#else
    if (forked.load(std::memory_order_relaxed))
        return nullptr;
    // PyTorch may be imported after this library, so a failure is not remembered.
    static std::atomic<GompParallel> found{nullptr};
    GompParallel entry = found.load(std::memory_order_relaxed);
    if (entry == nullptr) {
        entry = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        found.store(entry, std::memory_order_relaxed);
    }
    return entry;
#endif
}

struct Loop {
    const std::function<void(int64_t, int)> &body;
    int64_t chunks;
    std::atomic<int64_t> next_chunk{0};
    std::atomic<int> next_worker{0};

    void work() {
        const int worker = next_worker.fetch_add(1);
        for (int64_t chunk; (chunk = next_chunk.fetch_add(1)) < chunks;)
            body(chunk, worker);
    }
};

void run_on_threads(Loop &loop, int threads) {
    std::vector<std::thread> helpers;
    try {
        helpers.reserve(static_cast<size_t>(threads - 1));
        for (int i = 1; i < threads; ++i)
            helpers.emplace_back([&loop] { loop.work(); });
    } catch (const std::system_error &) { // no more threads to be had: those that started share the work
    }
    loop.work();
    for (auto &helper : helpers)
        helper.join();
}

} // namespace

void parallel_for(int64_t chunks, int threads, const std::function<void(int64_t, int)> &body) {
    if (chunks < threads)
        threads = static_cast<int>(chunks);
    if (threads <= 1) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
            body(chunk, 0);
        return;
    }
    Loop loop{body, chunks};
    if (auto run = gomp_parallel())
        run([](void *data) { static_cast<Loop *>(data)->work(); }, &loop, static_cast<unsigned>(threads), 0);
    else
        run_on_threads(loop, threads);
}

const char *threading_runtime() { return gomp_parallel() ? "gomp" : "std::thread"; }

} // namespace fqvae
