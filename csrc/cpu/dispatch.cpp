#include "dispatch.h"

#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>

#include "../row/forward.h"
#include "parallel.h"
#include "plan.h"

namespace fqvae {
namespace {

struct InstructionSet {
    const char *name;
    bool (*available)();
    Kernels (*kernels)();
};

constexpr InstructionSet kInstructionSets[] = {
#if defined(FQVAE_HAVE_AVX512)
    {"avx512",
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("fma");
     },
     avx512_kernels},
#endif
#if defined(FQVAE_HAVE_AVX2)
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, avx2_kernels},
#endif
    {"portable", [] { return true; }, portable_kernels},
    {"scalar", [] { return true; }, scalar_kernels},
    {"device", [] { return true; }, device_kernels},
};

const InstructionSet &find(const std::string &name) {
    for (const auto &set : kInstructionSets)
        if (name == set.name && set.available())
            return set;
    std::string known;
    for (const auto &each : instruction_sets())
        known += (known.empty() ? "" : ", ") + each;
    throw std::invalid_argument("instruction set must be one that this build and processor have (" + known +
                                "), got '" + name + "'");
}

const InstructionSet *&current() {
    static const InstructionSet *set = [] {
        const char *forced = std::getenv("FQVAE_CPU_ISA");
        return &find(forced && *forced ? std::string(forced) : instruction_sets().front());
    }();
    return set;
}

Kernels kernels_for(bool is_double) { return is_double ? portable_double_kernels() : current()->kernels(); }
Kernels kernels_for(const Problem &problem) { return kernels_for(problem.dtype == DType::kFloat64); }

// One worker's memory.
class ScratchStorage {
  public:
    ScratchStorage(const Kernels &kernels, int codes, size_t codebook_sum_bytes, size_t node_sum_bytes)
        : keys_(static_cast<size_t>(codes) / 4 + 1), tile_(allocate(kernels.tile_bytes)),
          codebook_sums_(allocate(codebook_sum_bytes)), node_sums_(allocate(node_sum_bytes)),
          scratch_{keys_.data(), 0, false, tile_.get(), codebook_sums_.get(), node_sums_.get()} {}
    Scratch &get() { return scratch_; }

  private:
    static constexpr auto kPage = std::align_val_t(4096);
    struct Free {
        void operator()(void *p) const { ::operator delete(p, kPage); }
    };
    static void *allocate(size_t bytes) { return bytes ? ::operator new(bytes, kPage) : nullptr; }

    std::vector<PhiloxCode> keys_;
    std::unique_ptr<void, Free> tile_, codebook_sums_, node_sums_;
    Scratch scratch_;
};

std::vector<std::unique_ptr<ScratchStorage>> scratch_for(const Kernels &kernels, int workers, int codes,
                                                         size_t codebook_sum_bytes = 0,
                                                         size_t node_sum_bytes = 0) {
    std::vector<std::unique_ptr<ScratchStorage>> all;
    for (int i = 0; i < workers; ++i)
        all.push_back(std::make_unique<ScratchStorage>(kernels, codes, codebook_sum_bytes, node_sum_bytes));
    return all;
}

// Chunks of positions: their size depends on the problem alone, never on the number of threads. `most` limits
// their number.
struct Chunks {
    int64_t positions, size, count;

    Chunks(int64_t positions, int64_t pairs_per_position, int64_t most) : positions(positions) {
        constexpr int64_t kPairs = 32768; // some 25 microseconds: worth handing to another thread
        size = std::max(kPairs / std::max<int64_t>(pairs_per_position, 1), (positions + most - 1) / most);
        size = std::max<int64_t>((size + 15) / 16 * 16, 16); // whole groups of rows for every instruction set
        count = (positions + size - 1) / size;
    }
    Range operator[](int64_t i) const { return {i * size, std::min(positions, (i + 1) * size)}; }
    int workers(int threads) const {
        return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, count)));
    }
};
constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 2;

template <class Real> void backward(const Problem &problem, const BackwardArguments &args,
                                    void *grad_codebook, double *grad_temperature, int threads) {
    const Kernels kernels = kernels_for(problem);
    PlanStorage<Real> storage(problem);
    storage.tabulate_posterior(kernels, problem.codes);
    const size_t all_codes = static_cast<size_t>(problem.codebooks) * static_cast<size_t>(problem.codes);
    // Each chunk leaves a partial gradient of the codebook, which costs a microsecond or more: at most 256 of
    // them, few if the codebook is large, more than 16 only of some 100 microseconds each, and none for less
    // than four groups of rows.
    const int64_t positions = problem.rows / problem.codebooks;
    const int64_t enough = std::max<int64_t>(16, positions * static_cast<int64_t>(all_codes) / 131072);
    const int64_t most =
        std::min({std::clamp<int64_t>(static_cast<int64_t>((size_t(4) << 20) / all_codes), 8, 256), enough,
                  (positions + 63) / 64});
    const Chunks chunks(positions, problem.codebooks * problem.codes, std::max<int64_t>(most, 1));
    const int workers = chunks.workers(threads);
    const Codebook &book = storage.plan.codebooks[0];
    const size_t node_weights = book.posterior ? 2 * static_cast<size_t>(book.posterior_nodes) : 0;
    auto scratch =
        scratch_for(kernels, workers, problem.codes,
                    sizeof(Real) * static_cast<size_t>(problem.codes) * static_cast<size_t>(kernels.width),
                    sizeof(Real) * node_weights);
    const size_t part = all_codes + node_weights + 1;
    std::vector<double> parts(part * static_cast<size_t>(chunks.count));
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        double *codebook = parts.data() + static_cast<size_t>(i) * part;
        kernels.backward(
            problem, storage.plan, args, chunks[i], scratch[static_cast<size_t>(worker)]->get(),
            {codebook, node_weights ? codebook + all_codes : nullptr, codebook + all_codes + node_weights});
    });
    std::vector<double> sums(part); // in the order of the chunks, whoever computed them
    for (size_t i = 0; i < static_cast<size_t>(chunks.count); ++i)
        for (size_t k = 0; k < part; ++k)
            sums[k] += parts[i * part + k];
    if (node_weights)
        kernels.posterior_gradient(book, problem.codes, sums.data() + all_codes, scratch[0]->get(),
                                   sums.data());
    if (grad_codebook)
        std::transform(sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(all_codes),
                       static_cast<Real *>(grad_codebook), [](double x) { return static_cast<Real>(x); });
    if (grad_temperature)
        *grad_temperature = sums[part - 1];
}

template <class Real> void forward(const Problem &problem, const ForwardOutputs &out, int threads) {
    const Kernels kernels = kernels_for(problem);
    PlanStorage<Real> storage(problem);
    storage.tabulate_posterior(kernels, problem.codes);
    const Chunks chunks(problem.rows / problem.codebooks, problem.codebooks * problem.codes, kNoLimit);
    const int workers = chunks.workers(threads);
    auto scratch = scratch_for(kernels, workers, problem.codes);
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        kernels.forward(problem, storage.plan, out, chunks[i], scratch[static_cast<size_t>(worker)]->get());
    });
}

template <class Real> void nearest(const Problem &problem, const NearestOutputs &out, int threads) {
    const Kernels kernels = kernels_for(problem);
    const PlanStorage<Real> storage(problem);
    const Chunks chunks(problem.rows / problem.codebooks, problem.codebooks * problem.codes / 4, kNoLimit);
    parallel_for(chunks.count, chunks.workers(threads),
                 [&](int64_t i, int) { kernels.nearest(problem, storage.plan, out, chunks[i]); });
}

} // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const auto &set : kInstructionSets)
        if (set.available())
            names.emplace_back(set.name);
    return names;
}

std::string instruction_set() { return current()->name; }

void use_instruction_set(const std::string &name) { current() = &find(name); }

void gumbel_forward(const Problem &problem, const ForwardOutputs &out, int threads) {
    problem.dtype == DType::kFloat64 ? forward<double>(problem, out, threads)
                                     : forward<float>(problem, out, threads);
}

void gumbel_backward(const Problem &problem, BackwardArguments args, void *grad_codebook,
                     double *grad_temperature, int threads) {
    args.temperature = grad_temperature != nullptr;
    problem.dtype == DType::kFloat64
        ? backward<double>(problem, args, grad_codebook, grad_temperature, threads)
        : backward<float>(problem, args, grad_codebook, grad_temperature, threads);
}

void nearest_forward(const Problem &problem, const NearestOutputs &out, int threads) {
    problem.dtype == DType::kFloat64 ? nearest<double>(problem, out, threads)
                                     : nearest<float>(problem, out, threads);
}

void gumbel_noise(uint64_t seed, uint64_t first_row, int64_t rows, int codes, bool is_double, void *out,
                  int threads) {
    const Kernels kernels = kernels_for(is_double);
    const Chunks chunks(rows, codes, kNoLimit);
    const int workers = chunks.workers(threads);
    auto scratch = scratch_for(kernels, workers, codes);
    const size_t row_bytes = (is_double ? sizeof(double) : sizeof(float)) * static_cast<size_t>(codes);
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        const Range range = chunks[i];
        kernels.noise(seed, first_row + static_cast<uint64_t>(range.begin), range.end - range.begin, codes,
                      static_cast<char *>(out) + static_cast<size_t>(range.begin) * row_bytes,
                      scratch[static_cast<size_t>(worker)]->get());
    });
}

void gumbel_from_words(const uint32_t *words, int64_t count, bool is_double, void *out) {
    kernels_for(is_double).noise_from_words(words, count, out);
}

void philox_words(uint64_t seed, uint64_t first_row, int64_t rows, int codes, uint32_t *out, int threads) {
    const Kernels kernels = kernels_for(false);
    const Chunks chunks(rows, codes, kNoLimit);
    const int workers = chunks.workers(threads);
    auto scratch = scratch_for(kernels, workers, codes);
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        const Range range = chunks[i];
        kernels.words(seed, first_row + static_cast<uint64_t>(range.begin), range.end - range.begin, codes,
                      out + range.begin * codes, scratch[static_cast<size_t>(worker)]->get());
    });
}

uint32_t philox_floor(uint64_t seed, int64_t rows, int codes, int threads) {
    const Kernels kernels = kernels_for(false);
    const Chunks chunks(rows, codes, kNoLimit);
    const int workers = chunks.workers(threads);
    auto scratch = scratch_for(kernels, workers, codes);
    std::vector<uint32_t> sums(static_cast<size_t>(workers));
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        const Range range = chunks[i];
        sums[static_cast<size_t>(worker)] ^=
            kernels.floor(seed, static_cast<uint64_t>(range.begin), range.end - range.begin, codes,
                          scratch[static_cast<size_t>(worker)]->get());
    });
    uint32_t sum = 0;
    for (uint32_t part : sums)
        sum ^= part;
    return sum;
}

} // namespace fqvae
