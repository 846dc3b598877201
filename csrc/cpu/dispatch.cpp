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

// `what` names the instruction set for the error.
const InstructionSet &find(const std::string &name, const char *what = "instruction set") {
    for (const auto &set : kInstructionSets)
        if (name == set.name && set.available())
            return set;
    std::string known;
    for (const auto &each : instruction_sets())
        known += (known.empty() ? "" : ", ") + each;
    throw std::invalid_argument(std::string(what) + " must be one that this build and processor have (" +
                                known + "), got '" + name + "'");
}

const InstructionSet *&current() {
    static const InstructionSet *set = [] {
        const char *variable = "FQVAE_CPU_ISA", *forced = std::getenv(variable);
        return forced && *forced ? &find(forced, variable) : &find(instruction_sets().front());
    }();
    return set;
}

Kernels kernels_for(bool is_double) { return is_double ? portable_double_kernels() : current()->kernels(); }
Kernels kernels_for(const Call &call) { return kernels_for(call.dtype == DType::kFloat64); }

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

// Chunks of positions: their size depends on the call alone, never on the number of threads. `most` limits
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

template <class Real> void backward_rows(const Call &call, const BackwardArguments &args, int threads) {
    const Kernels kernels = kernels_for(call);
    // ReinMax sums under the posterior in any case.
    PlanStorage<Real> storage(call, args.incoming.kl && call.estimator != Estimator::kReinMax);
    storage.tabulate_posterior(kernels, call.codes);
    const size_t all_codes = static_cast<size_t>(call.codebooks) * static_cast<size_t>(call.codes);
    // Each chunk leaves a partial gradient of the codebook, which costs a microsecond or more: at most 256 of
    // them, few if the codebook is large, more than 16 only of some 100 microseconds each, and none for less
    // than four groups of rows.
    const int64_t positions = call.rows / call.codebooks;
    const int64_t enough = std::max<int64_t>(16, positions * static_cast<int64_t>(all_codes) / 131072);
    const int64_t most =
        std::min({std::clamp<int64_t>(static_cast<int64_t>((size_t(4) << 20) / all_codes), 8, 256), enough,
                  (positions + 63) / 64});
    const Chunks chunks(positions, call.codebooks * call.codes, std::max<int64_t>(most, 1));
    const int workers = chunks.workers(threads);
    const Codebook &book = storage.plan.codebooks[0];
    // What nobody wants gets no memory.
    const size_t gradients = args.grad_codebook ? all_codes : 0;
    const size_t lane_sums = static_cast<size_t>(call.codes) * static_cast<size_t>(kernels.width);
    const size_t node_weights =
        gradients && book.posterior ? 2 * static_cast<size_t>(book.posterior_nodes) : 0;
    auto scratch =
        scratch_for(kernels, workers, call.codes, sizeof(Real) * lane_sums, sizeof(Real) * node_weights);
    const size_t part = gradients + node_weights + 1;
    std::vector<double> parts(part * static_cast<size_t>(chunks.count));
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        double *sums = parts.data() + static_cast<size_t>(i) * part;
        kernels.backward(call, storage.plan, args, chunks[i], scratch[static_cast<size_t>(worker)]->get(),
                         {gradients ? sums : nullptr, node_weights ? sums + gradients : nullptr,
                          sums + gradients + node_weights});
    });
    std::vector<double> sums(part); // in the order of the chunks, whoever computed them
    for (size_t i = 0; i < static_cast<size_t>(chunks.count); ++i)
        for (size_t k = 0; k < part; ++k)
            sums[k] += parts[i * part + k];
    if (node_weights)
        kernels.posterior_gradient(book, call.codes, sums.data() + gradients, scratch[0]->get(), sums.data());
    std::transform(sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(gradients),
                   static_cast<Real *>(args.grad_codebook), [](double x) { return static_cast<Real>(x); });
    if (args.grad_temperature)
        *args.grad_temperature = sums[part - 1];
}

template <class Real> void forward_rows(const Call &call, const Outputs &out, int threads) {
    const Kernels kernels = kernels_for(call);
    PlanStorage<Real> storage(call, out.kl);
    storage.tabulate_posterior(kernels, call.codes);
    const Chunks chunks(call.rows / call.codebooks,
                        call.codebooks * call.codes / (call.estimator == Estimator::kGumbel ? 1 : 4),
                        kNoLimit);
    const int workers = chunks.workers(threads);
    auto scratch = scratch_for(kernels, workers, call.codes);
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        kernels.forward(call, storage.plan, out, chunks[i], scratch[static_cast<size_t>(worker)]->get());
    });
}

// usage: null where nobody counts.
template <class Real> void nearest_rows(const Call &call, const Outputs &out, Usage *usage, int threads) {
    const Kernels kernels = kernels_for(call);
    const PlanStorage<Real> storage(call, false);
    const Chunks chunks(call.rows / call.codebooks, call.codebooks * call.codes / 4, kNoLimit);
    const int workers = chunks.workers(threads);
    const bool counts = usage && usage->is_small();
    if (counts)
        usage->begin(call.rows, workers);
    parallel_for(chunks.count, workers, [&](int64_t i, int worker) {
        kernels.nearest(call, storage.plan, out, chunks[i], counts ? usage->of(worker) : Counts{});
    });
    if (counts)
        usage->end();
    else if (usage)
        usage->count(out.indices, call.rows, threads);
}

void nearest(const Call &call, const Outputs &out, Usage *usage, int threads) {
    call.dtype == DType::kFloat64 ? nearest_rows<double>(call, out, usage, threads)
                                  : nearest_rows<float>(call, out, usage, threads);
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

void forward(const Call &call, const Outputs &out, int threads) {
    const bool is_double = call.dtype == DType::kFloat64;
    if (call.estimator == Estimator::kNearest)
        nearest(call, out, nullptr, threads);
    else
        is_double ? forward_rows<double>(call, out, threads) : forward_rows<float>(call, out, threads);
}

void forward_counted(const Call &call, const Outputs &out, Usage &usage, int threads) {
    nearest(call, out, &usage, threads);
}

void backward(const Call &call, const BackwardArguments &args, int threads) {
    call.dtype == DType::kFloat64 ? backward_rows<double>(call, args, threads)
                                  : backward_rows<float>(call, args, threads);
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
