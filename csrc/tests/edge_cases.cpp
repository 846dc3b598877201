// The CPU kernels without Python, at the sizes where they could go wrong: for the sanitizers, and for
// processors that the tests in Python do not run on. Every buffer is its own heap block of exactly the size
// promised, so that a single element too far is caught; what comes back is compared with truth.h.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cpu/dispatch.h"
#include "../row/stats.h"
#include "block.h"
#include "truth.h"

using namespace fqvae;

namespace {

int failures = 0;

void expect(bool good, const std::string &what, const std::string &where) {
    if (!good && ++failures <= 20)
        std::printf("%s: %s\n", where.c_str(), what.c_str());
}

struct Shape {
    int64_t rows;
    int codes;
    int64_t codebooks;
    uint64_t row_offset;
};

struct Results {
    Block input, codebook, grad_quantized, grad_kl, grad_weights; // what was given
    Block quantized, indices, kl, weights, stats, grad_input, grad_codebook;
    double grad_temperature = 0;
};
constexpr uint64_t kSeed = 0x123456789ull;

// What is computed of a shape, and with which numbers.
struct Choice {
    DType dtype;
    bool is_logits, hard, weights;
    double temperature, spread;
    Estimator estimator = Estimator::kGumbel;
    bool keeps_weights = false; // the backward pass gets those of the forward pass
    double bad_code = 0;        // stands in the last codebook, if it is not finite

    bool gives_codes() const { return hard || estimator != Estimator::kGumbel; }
    // The kept weights give no gradient of the temperature.
    bool by_temperature() const { return weights && !keeps_weights; }
};

// Nearest codes for z, counted in the same pass: of one latent, and of as many as there are codebooks.
void check_usage(const Call &call, const Outputs &out, int threads) {
    for (const int64_t latents : {int64_t(1), call.codebooks}) {
        const size_t size = static_cast<size_t>(latents) * static_cast<size_t>(call.codes);
        Block counted(size, 8);
        auto *table = counted.as<int64_t>();
        std::fill_n(table, size, 0);
        Usage usage(table, latents, call.codes);
        forward_counted(call, out, usage, threads);
        for (int64_t i = 0; i < call.rows; ++i)
            --table[i % latents * call.codes + out.indices[i]];
        expect(std::all_of(table, table + size, [](int64_t count) { return count == 0; }), "nearest",
               "counts");
    }
}

// One call forwards and backwards, and nearest codes for z.
Results run(const Shape &shape, const Choice &choice, int threads) {
    const auto [dtype, is_logits, hard, weights, temperature, spread, estimator, keeps_weights, bad_code] =
        choice;
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
    if (!std::isfinite(bad_code))
        put(codebook, compute, books * codes - 1, bad_code);
    Block a(rows, size), h(rows, real), v(rows * codes, size);
    for (size_t i = 0; i < rows; ++i)
        put(a, dtype, i, normal(random)), put(h, compute, i, normal(random));
    for (size_t i = 0; i < rows * codes; ++i)
        put(v, dtype, i, normal(random));

    Results out{std::move(input),
                std::move(codebook),
                std::move(a),
                std::move(h),
                std::move(v),
                Block(rows, size),
                Block(rows, 8),
                Block(rows, real),
                Block(weights ? rows * codes : 0, size),
                Block(rows * kStats, real),
                Block(inputs, size),
                Block(books * codes, real)};
    Call call{};
    call.input = out.input.as<void>();
    call.codebook = out.codebook.as<void>();
    call.seed = kSeed;
    call.row_offset = shape.row_offset;
    call.temperature = temperature;
    call.log2_codes = std::log2(shape.codes);
    call.ln_codes = std::log(shape.codes);
    call.rows = shape.rows;
    call.codebooks = shape.codebooks;
    call.codes = shape.codes;
    call.dtype = dtype;
    call.estimator = estimator;
    call.hard = hard;
    call.is_logits = is_logits;
    const bool kept = keeps_weights && weights && size == real;
    forward(call,
            {out.quantized.as<void>(), out.indices.as<int64_t>(), out.kl.as<void>(),
             weights ? out.weights.as<void>() : nullptr, out.stats.as<void>()},
            threads);
    backward(call,
             {{out.indices.as<int64_t>(), out.stats.as<void>(), kept ? out.weights.as<void>() : nullptr},
              {out.grad_quantized.as<void>(), out.grad_kl.as<void>(),
               weights ? out.grad_weights.as<void>() : nullptr},
              out.grad_input.as<void>(),
              out.grad_codebook.as<void>(),
              choice.by_temperature() ? &out.grad_temperature : nullptr},
             threads);
    { // without what nobody asks for
        Block quantized(rows, size), indices(rows, 8), grad_input(inputs, size), stats(rows * kStats, real);
        forward(call, {quantized.as<void>(), indices.as<int64_t>(), nullptr, nullptr, stats.as<void>()},
                threads);
        expect(quantized == out.quantized && indices == out.indices, "without kl", "outputs");
        backward(call,
                 {{indices.as<int64_t>(), stats.as<void>(), nullptr},
                  {out.grad_quantized.as<void>(), nullptr, nullptr},
                  grad_input.as<void>(),
                  nullptr,
                  nullptr},
                 threads);
        for (size_t i = 0; i < inputs; ++i)
            expect(std::isfinite(get(grad_input, dtype, i)), "without kl", "gradient");
        backward(call, {{indices.as<int64_t>(), stats.as<void>(), nullptr}, {}, nullptr, nullptr, nullptr},
                 threads);
        Block kl(rows, real);
        forward(call, {nullptr, nullptr, kl.as<void>(), nullptr, nullptr}, threads);
        expect(kl == out.kl, "kl alone", "outputs");
    }
    forward(call, {}, threads); // nothing is wanted
    if (!is_logits) {
        Block nearest(rows, size), indices(rows, 8);
        call.estimator = Estimator::kNearest;
        forward(call, {nearest.as<void>(), indices.as<int64_t>(), nullptr, nullptr, nullptr}, threads);
        forward(call, {}, threads);
        for (size_t i = 0; i < rows; ++i)
            expect(indices.as<int64_t>()[i] >= 0 && indices.as<int64_t>()[i] < shape.codes, "nearest index",
                   "range");
        check_usage(call, {nearest.as<void>(), indices.as<int64_t>(), nullptr, nullptr, nullptr}, threads);
    }
    return out;
}

// Compares all results with the truth.
void check(const Results &out, const Shape &shape, const Choice &choice, const std::string &where) {
    const auto dtype = choice.dtype;
    const bool is_logits = choice.is_logits, hard = choice.gives_codes(), weights = choice.weights;
    const double temperature = choice.temperature;
    const bool drawn = choice.estimator != Estimator::kGumbel,
               reinmax = choice.estimator == Estimator::kReinMax;
    const DType compute = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
    const auto codes = static_cast<size_t>(shape.codes), books = static_cast<size_t>(shape.codebooks);
    // Errors are absolute, or relative where numbers exceed 1: of the arithmetic, and of storing.
    const double error = (compute == DType::kFloat64 ? 1e-10 : 1e-5) * std::max(1.0, 0.2 / temperature);
    const double stored = dtype == DType::kFloat16 ? 0x1p-11 : dtype == DType::kBFloat16 ? 0x1p-8 : 0;
    const auto near = [&](double got, double expected, double scale, double rounding, const char *what) {
        const double allowed =
            error * std::max(1.0, scale) + rounding * std::fabs(expected) + rounding / 8192;
        if (!(std::fabs(got - expected) <= allowed))
            expect(false, what + (": " + std::to_string(got)) + " for " + std::to_string(expected), where);
    };
    std::vector<double> grad_codebook(books * codes), codebook_scale(books * codes);
    double grad_temperature = 0, temperature_scale = 0;
    for (size_t i = 0; i < static_cast<size_t>(shape.rows); ++i) {
        const auto index = const_cast<Results &>(out).indices.as<int64_t>()[i];
        expect(index >= 0 && index < shape.codes, "index range", where);
        std::vector<double> book(codes), logits(codes), noise(codes), v(codes);
        for (size_t k = 0; k < codes; ++k) {
            book[k] = get(out.codebook, compute, i % books * codes + k);
            noise[k] =
                drawn ? 0 : truth::noise(truth::word(kSeed, shape.row_offset + i, static_cast<int>(k)));
            v[k] = weights ? get(out.grad_weights, dtype, i * codes + k) : 0;
            if (is_logits)
                logits[k] = get(out.input, dtype, i * codes + k);
        }
        const double z = is_logits ? 0 : get(out.input, dtype, i);
        const bool has_nan =
            std::any_of(logits.begin(), logits.end(), [](double x) { return std::isnan(x); });
        const bool good_codes =
            std::all_of(book.begin(), book.end(), [](double code) { return std::isfinite(code); });
        const double largest = has_nan ? NAN : *std::max_element(logits.begin(), logits.end());
        if (!std::isfinite(z) || !std::isfinite(largest) || !good_codes) {
            bool nothing = std::isnan(get(out.quantized, dtype, i)) && std::isnan(get(out.kl, compute, i));
            for (size_t k = 0; weights && k < codes; ++k)
                nothing = nothing && std::isnan(get(out.weights, dtype, i * codes + k));
            for (size_t k = 0; k < (is_logits ? codes : 1); ++k)
                nothing = nothing && get(out.grad_input, dtype, is_logits ? i * codes + k : i) == 0;
            expect(nothing, "a row that is not finite has results", where);
            continue;
        }
        const truth::Row row(book, is_logits ? logits : truth::Row::distances(z, book), noise, temperature);
        const auto chosen = static_cast<size_t>(index);
        if (drawn)
            expect(row.draws(chosen, truth::uniform(kSeed, shape.row_offset + i)), "drawn index", where);
        else
            near(row.scores[chosen], *std::max_element(row.scores.begin(), row.scores.end()), 1, 0, "score");
        near(get(out.quantized, dtype, i), hard ? book[chosen] : row.value(), 4, stored, "quantized");
        near(get(out.kl, compute, i), row.kl(), 1, 0, "kl");
        for (size_t k = 0; weights && k < codes; ++k)
            near(get(out.weights, dtype, i * codes + k), hard ? k == chosen : row.soft.weights[k], 1, stored,
                 "weight");

        const double a = get(out.grad_quantized, dtype, i), h = get(out.grad_kl, compute, i);
        const auto by_logits = reinmax ? row.by_logits_of_reinmax(a, h, v, chosen) : row.by_logits(a, h, v);
        double by_z = 0, by_z_scale = 1, reach = 1;
        for (double m : book)
            reach = std::max(reach, std::fabs(m));
        for (size_t k = 0; k < codes; ++k) {
            const double by_code = by_logits[k] == 0 || is_logits ? 0 : by_logits[k] * 2 * (z - book[k]);
            const double direct = a * (hard ? k == chosen : row.soft.weights[k]);
            grad_codebook[i % books * codes + k] += by_code + direct;
            codebook_scale[i % books * codes + k] += std::fabs(by_code) + std::fabs(direct);
            by_z += by_logits[k] * 2 * book[k]; // the logits' gradients add up to 0, and so z drops out
            by_z_scale += std::fabs(by_logits[k] * 2 * book[k]);
            if (is_logits)
                near(get(out.grad_input, dtype, i * codes + k), by_logits[k], 4 * reach, stored,
                     "logit's gradient");
        }
        if (!is_logits)
            near(get(out.grad_input, dtype, i), by_z, 4 * by_z_scale, stored, "z's gradient");
        grad_temperature += reinmax ? 0 : row.by_temperature(a, v);
        temperature_scale += std::fabs(row.by_temperature(a, v));
    }
    for (size_t k = 0; k < codes * books; ++k)
        near(get(out.grad_codebook, compute, k), grad_codebook[k], 4 + 4 * codebook_scale[k], 0,
             "codebook's gradient");
    if (choice.by_temperature())
        near(out.grad_temperature, grad_temperature, 4 + 4 * temperature_scale, 0, "temperature's gradient");
}

// Words and noise of rows at and around the places where a row's number carries.
void check_noise(const std::string &set) {
    Block first(4, 4);
    philox_words(0, 0, 1, 4, first.as<uint32_t>(), 1);
    const uint32_t published[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    expect(std::equal(published, published + 4, first.as<uint32_t>()), "the published words", set);
    for (uint64_t seed : {uint64_t(9), ~uint64_t(0), uint64_t(0x299f31d0a4093822)})
        for (uint64_t offset : {uint64_t(0), uint64_t(0xfffffffd), ~uint64_t(0) - 5})
            for (int codes : {1, 4, 5, 67}) {
                constexpr size_t rows = 37;
                const size_t count = rows * static_cast<size_t>(codes);
                Block words(count, 4), single(count, 4), twice(count, 8), from_words(count, 4);
                philox_words(seed, offset, rows, codes, words.as<uint32_t>(), 1);
                gumbel_noise(seed, offset, rows, codes, false, single.as<void>(), 1);
                gumbel_noise(seed, offset, rows, codes, true, twice.as<void>(), 1);
                gumbel_from_words(words.as<uint32_t>(), static_cast<int64_t>(count), false,
                                  from_words.as<void>());
                expect(single == from_words, "noise and words differ", set);
                for (size_t i = 0; i < count; ++i) {
                    const auto n = static_cast<size_t>(codes);
                    const uint32_t word = truth::word(seed, offset + i / n, static_cast<int>(i % n));
                    const double g = truth::noise(word), scale = std::max(1.0, std::fabs(g));
                    expect(words.as<uint32_t>()[i] == word, "word", set);
                    expect(std::fabs(get(single, DType::kFloat32, i) - g) <= 2e-6 * scale, "noise", set);
                    expect(std::fabs(get(twice, DType::kFloat64, i) - g) <= 1e-14 * scale, "noise in double",
                           set);
                }
            }
}

void kernels(const std::string &set) {
    check_noise(set);
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
                    Choice choice{dtype, turn % 5 == 0, turn % 2 == 0, turn % 3 == 0, 0.7, 1};
                    choice.temperature = turn % 4 == 0 ? 0.05 : 0.7;
                    choice.spread = turn % 7 == 0 ? 100 : 1;
                    const std::string where = set + " rows " + std::to_string(shape.rows) + " codes " +
                                              std::to_string(k) + " codebooks " + std::to_string(books) +
                                              " type " + std::to_string(type) + " turn " +
                                              std::to_string(turn);
                    check(run(shape, choice, 1), shape, choice, where);
                    Choice drawn = choice;
                    drawn.estimator = turn % 2 == 0 ? Estimator::kStraightThrough : Estimator::kReinMax;
                    check(run(shape, drawn, 1), shape, drawn, where + " drawn");
                    Choice kept = choice;
                    kept.hard = false, kept.weights = kept.keeps_weights = true;
                    check(run(shape, kept, 1), shape, kept, where + " kept");
                    const double bad[] = {NAN, INFINITY, -INFINITY};
                    choice.bad_code = drawn.bad_code = bad[turn % 3];
                    check(run(shape, choice, 1), shape, choice, where + " bad code");
                    check(run(shape, drawn, 1), shape, drawn, where + " drawn, bad code");
                }
    // Enough rows for the table of the posterior, for several chunks, and for threads: the same bits however
    // many.
    const Shape many{9001, 16, 1, 0xffffff00ull};
    for (int turn = 0; turn < 5; ++turn) {
        Choice choice{DType::kFloat32, false, false, turn % 2 == 1, 0.7, 1};
        choice.estimator = turn < 2    ? Estimator::kGumbel
                           : turn == 2 ? Estimator::kReinMax
                                       : Estimator::kStraightThrough;
        const auto one = run(many, choice, 1), three = run(many, choice, 3);
        check(one, many, choice, set + " many rows, turn " + std::to_string(turn));
        expect(one.quantized == three.quantized && one.indices == three.indices && one.kl == three.kl &&
                   one.grad_input == three.grad_input && one.grad_codebook == three.grad_codebook,
               "one and three threads differ", set);
    }
    philox_floor(9, 17, 67, 1);
}

} // namespace

int main() {
    expect(truth::philox_is_as_published(), "differs from the published answers", "truth::philox");
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
