// The CPU kernels without Python, at the sizes where they could go wrong: for the sanitizers. Every buffer is
// its own heap block of exactly the size promised, so that a single element too far is caught; what comes
// back is checked for sense.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cpu/dispatch.h"
#include "../row/forward.h"

using namespace fqvae;

namespace {

int failures = 0;

void expect(bool good, const std::string &what, const std::string &where) {
    if (!good && ++failures <= 20)
        std::printf("%s: %s\n", where.c_str(), what.c_str());
}

size_t bytes_of(DType dtype) { return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2; }

// A heap block of exactly this many elements, filled with a pattern that is NaN in every type.
struct Block {
    size_t bytes;
    std::unique_ptr<unsigned char[]> data;
    explicit Block(size_t count, size_t size) : bytes(count * size), data(new unsigned char[bytes]) {
        std::fill_n(data.get(), bytes, static_cast<unsigned char>(0xff));
    }
    template <class T> T *as() { return reinterpret_cast<T *>(data.get()); }
    bool operator==(const Block &other) const {
        return bytes == other.bytes && std::equal(data.get(), data.get() + bytes, other.data.get());
    }
};

// Writes x in the storage type: exactly for the values used here, by truncation otherwise.
void put(Block &block, DType dtype, size_t i, double x) {
    const auto single = static_cast<float>(x);
    uint32_t bits;
    memcpy(&bits, &single, 4);
    if (dtype == DType::kFloat64)
        block.as<double>()[i] = x;
    else if (dtype == DType::kFloat32)
        block.as<float>()[i] = single;
    else if (dtype == DType::kBFloat16)
        block.as<uint16_t>()[i] = static_cast<uint16_t>(bits >> 16);
    else if (std::isnan(x) || std::isinf(x))
        block.as<uint16_t>()[i] =
            static_cast<uint16_t>((bits >> 16 & 0x8000u) | 0x7c00u | (std::isnan(x) ? 1u : 0u));
    else if (std::fabs(x) < 6.2e-5)
        block.as<uint16_t>()[i] = 0;
    else
        block.as<uint16_t>()[i] = static_cast<uint16_t>(
            (bits >> 16 & 0x8000u) | std::min(0x7bffu, ((bits & 0x7fffffffu) - (112u << 23)) >> 13));
}

struct Shape {
    int64_t rows;
    int codes;
    int64_t codebooks;
    uint64_t row_offset;
};

struct Results {
    Block quantized, indices, kl, weights, sums, grad_input, grad_codebook;
    double grad_temperature = 0;
};

// One call forwards and backwards, and nearest codes for z.
Results run(const Shape &shape, DType dtype, bool is_logits, bool hard, bool weights, double temperature,
            double spread, int threads) {
    const size_t size = bytes_of(dtype), real = dtype == DType::kFloat64 ? 8 : 4;
    const DType compute = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
    const auto rows = static_cast<size_t>(shape.rows), codes = static_cast<size_t>(shape.codes);
    const auto books = static_cast<size_t>(shape.codebooks), inputs = is_logits ? rows * codes : rows;
    std::mt19937 random(static_cast<unsigned>(rows * 131 + codes));
    std::normal_distribution<double> normal;

    Block input(inputs, size), codebook(books * codes, real);
    for (size_t i = 0; i < inputs; ++i)
        put(input, dtype, i, normal(random) * 1.5);
    const double odd[] = {NAN, INFINITY, -INFINITY, 3e38, -3e38, 1e-40, 1e4, -1e4};
    for (size_t i = 0; i < 8 && 3 * i + 1 < inputs; ++i)
        put(input, dtype, 3 * i + 1, odd[i]);
    for (size_t k = 0; k < books * codes; ++k)
        put(codebook, compute, k, normal(random) * spread);
    Block a(rows, size), h(rows, real), v(rows * codes, size);
    for (size_t i = 0; i < rows; ++i)
        put(a, dtype, i, normal(random)), put(h, compute, i, normal(random));
    for (size_t i = 0; i < rows * codes; ++i)
        put(v, dtype, i, normal(random));

    const Problem problem{
        input.as<void>(), dtype,          is_logits,        codebook.as<void>(), shape.rows, shape.codes,
        shape.codebooks,  0x123456789ull, shape.row_offset, temperature,         hard};
    Results out{Block(rows, size),
                Block(rows, 8),
                Block(rows, real),
                Block(weights ? rows * codes : 0, size),
                Block(rows * kRowSums, real),
                Block(inputs, size),
                Block(books * codes, real)};
    gumbel_forward(problem,
                   {out.quantized.as<void>(), out.indices.as<int64_t>(), out.kl.as<void>(),
                    weights ? out.weights.as<void>() : nullptr, out.sums.as<void>()},
                   threads);
    gumbel_backward(problem,
                    {out.indices.as<int64_t>(), out.sums.as<void>(), a.as<void>(), h.as<void>(),
                     weights ? v.as<void>() : nullptr, out.grad_input.as<void>(), false},
                    out.grad_codebook.as<void>(), weights ? &out.grad_temperature : nullptr, threads);
    if (!is_logits) {
        Block nearest(rows, size), indices(rows, 8);
        nearest_forward(problem, {nearest.as<void>(), indices.as<int64_t>()}, threads);
        for (size_t i = 0; i < rows; ++i)
            expect(indices.as<int64_t>()[i] >= 0 && indices.as<int64_t>()[i] < shape.codes, "nearest index",
                   "range");
    }
    return out;
}

void check(const Results &all, const Shape &shape, DType dtype, const std::string &where) {
    auto &out = const_cast<Results &>(all);
    for (int64_t i = 0; i < shape.rows; ++i)
        expect(out.indices.as<int64_t>()[i] >= 0 && out.indices.as<int64_t>()[i] < shape.codes, "index range",
               where);
    const auto codes = static_cast<size_t>(shape.codes * shape.codebooks);
    for (size_t k = 0; k < codes; ++k)
        expect(std::isfinite(dtype == DType::kFloat64
                                 ? out.grad_codebook.as<double>()[k]
                                 : static_cast<double>(out.grad_codebook.as<float>()[k])),
               "codebook gradient is not finite", where);
    expect(std::isfinite(out.grad_temperature), "temperature gradient is not finite", where);
}

void kernels(const std::string &set) {
    const int64_t rows[] = {0, 1, 2, 15, 16, 17, 33};
    const int codes[] = {1, 2, 4, 5, 16, 63, 64, 65, 131};
    const uint64_t offsets[] = {0, 0xfffffff8ull, ~uint64_t(0) - 20};
    int turn = 0; // the choices below take turns, so that all meet without every combination being run
    for (int64_t n : rows)
        for (int k : codes)
            for (int64_t books : {1, 3})
                for (int type = 0; type < 4; ++type) {
                    ++turn;
                    const Shape shape{n * books, k, books, offsets[turn % 3]};
                    const auto dtype = static_cast<DType>(type);
                    const bool is_logits = turn % 5 == 0, hard = turn % 2 == 0, weights = turn % 3 == 0;
                    const double temperature = turn % 4 == 0 ? 0.05 : 0.7, spread = turn % 7 == 0 ? 100 : 1;
                    const std::string where = set + " rows " + std::to_string(shape.rows) + " codes " +
                                              std::to_string(k) + " codebooks " + std::to_string(books) +
                                              " type " + std::to_string(type) + " turn " +
                                              std::to_string(turn);
                    check(run(shape, dtype, is_logits, hard, weights, temperature, spread, 1), shape, dtype,
                          where);
                }
    // Enough rows for the table of the posterior, for several chunks, and for threads: the same bits however
    // many.
    const Shape many{9001, 16, 1, 0xffffff00ull};
    for (bool weights : {false, true}) {
        const auto one = run(many, DType::kFloat32, false, false, weights, 0.7, 1, 1);
        const auto three = run(many, DType::kFloat32, false, false, weights, 0.7, 1, 3);
        check(one, many, DType::kFloat32, set + " many rows");
        expect(one.quantized == three.quantized && one.indices == three.indices && one.kl == three.kl &&
                   one.grad_input == three.grad_input && one.grad_codebook == three.grad_codebook,
               "one and three threads differ", set);
    }
    Block noise(7 * 5, 4), words(7 * 5, 4), from_words(7 * 5, 4);
    gumbel_noise(9, 0xfffffffdull, 7, 5, false, noise.as<void>(), 1);
    philox_words(9, 0xfffffffdull, 7, 5, words.as<uint32_t>(), 1);
    gumbel_from_words(words.as<uint32_t>(), 7 * 5, false, from_words.as<void>());
    expect(noise == from_words, "noise and words differ", set);
    philox_floor(9, 17, 67, 1);
}

} // namespace

int main() {
    for (const auto &set : instruction_sets()) {
        use_instruction_set(set);
        kernels(set);
    }
    try {
        use_instruction_set("abacus");
        expect(false, "an unknown instruction set was taken", "dispatch");
    } catch (const std::invalid_argument &) {
    }
    std::printf("%s\n", failures ? "failed" : "every edge case passed");
    return failures != 0;
}
