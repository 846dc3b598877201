// What OnDevice asks of a CUDA runtime, on one that only writes it down. tests/test_cuda_support.py builds
// and runs this: one line of output for each case.
#include <cstdio>
#include <set>
#include <stdexcept>

#include "../cuda/on_device.h"

struct Runtime {
    int now;
    std::set<int> contexts;

    int current() const { return now; }
    void make_current(int device) {
        if (device > 1)
            throw std::runtime_error("no such device");
        std::printf(" set %d", device);
        contexts.insert(now = device);
    }
    void try_make_current(int device) noexcept { make_current(device); }
    bool has_context(int device) const { return contexts.count(device) > 0; }
};

static void run(const char *name, Runtime runtime, int device) {
    std::printf("%s:", name);
    try {
        const fqvae::OnDevice<Runtime> on_device(runtime, device);
        std::printf(" launch on %d", runtime.now);
    } catch (const std::runtime_error &error) {
        std::printf(" %s", error.what());
    }
    std::printf(", contexts");
    for (const int each : runtime.contexts)
        std::printf(" %d", each);
    std::printf("\n");
}

int main() {
    run("current already", {1, {1}}, 1);
    run("another with a context", {0, {0, 1}}, 1);
    run("another by default", {0, {1}}, 1);
    run("none such", {0, {0}}, 2);
}
