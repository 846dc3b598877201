// What the edge cases compare with, on every architecture: Philox4x32-10 as its authors publish it, and a
// row's results from their definitions in double precision. It includes nothing of the kernels'.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace truth {

using Words = std::array<uint32_t, 4>;

inline Words philox(Words counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t first = uint64_t{0xD2511F53} * counter[0], second = uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<uint32_t>(second >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(second),
                   static_cast<uint32_t>(first >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(first)};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// Inputs and outputs of Random123's file of known answers.
inline bool philox_is_as_published() {
    constexpr uint32_t all = 0xffffffffu;
    return philox({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8} &&
           philox({all, all, all, all}, all, all) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd} &&
           philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
               Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
}

inline uint32_t word(uint64_t seed, uint64_t row, int code) {
    const auto low = static_cast<uint32_t>(row), high = static_cast<uint32_t>(row >> 32);
    const Words four = philox({static_cast<uint32_t>(code / 4), 0, low, high}, static_cast<uint32_t>(seed),
                              static_cast<uint32_t>(seed >> 32));
    return four[static_cast<size_t>(code % 4)];
}

// The number that an index is drawn by.
inline double uniform(uint64_t seed, uint64_t row) {
    const auto low = static_cast<uint32_t>(row), high = static_cast<uint32_t>(row >> 32);
    const Words four =
        philox({0, 1, low, high}, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    return (static_cast<double>(four[0] >> 9) + 0.5) / 8388608;
}

// -ln(-ln u), u = ((word >> 9) + 1/2) / 2^23.
inline double noise(uint32_t word) {
    const double u = (static_cast<double>(word >> 9) + 0.5) / 8388608;
    return -std::log(u > 0.5 ? -std::log1p(u - 1) : -std::log(u));
}

inline double dot(const std::vector<double> &a, const std::vector<double> &b) {
    double sum = 0;
    for (size_t k = 0; k < a.size(); ++k)
        sum += a[k] == 0 ? 0 : a[k] * b[k];
    return sum;
}

// The weights and their logarithms for scores of which the largest is finite.
struct Softmax {
    std::vector<double> weights, logs;

    explicit Softmax(const std::vector<double> &scores) : weights(scores), logs(scores) {
        const double largest = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (double score : scores)
            total += std::exp(score - largest);
        for (size_t k = 0; k < scores.size(); ++k) {
            logs[k] = scores[k] - largest - std::log(total);
            weights[k] = std::exp(logs[k]);
        }
    }
};

// A row against its codebook. `logits` are given, or those of z.
struct Row {
    std::vector<double> codes, logits, scores; // scores: logits and noise
    double temperature;
    Softmax soft, posterior;

    Row(std::vector<double> codes, std::vector<double> logits, const std::vector<double> &noise,
        double temperature)
        : codes(std::move(codes)), logits(std::move(logits)), scores(this->logits), temperature(temperature),
          soft(tempered(noise)), posterior(this->logits) {}

    // -(z - m)^2 for each code m, less the same for the code nearest to z.
    static std::vector<double> distances(double z, const std::vector<double> &codes) {
        double nearest = codes[0];
        for (double m : codes)
            nearest = std::fabs(m - z) < std::fabs(nearest - z) ? m : nearest;
        std::vector<double> logits;
        for (double m : codes)
            logits.push_back((m - nearest) * (2 * (z - nearest) - (m - nearest)));
        return logits;
    }

    double value() const { return dot(soft.weights, codes); }
    double kl() const {
        return dot(posterior.weights, posterior.logs) + std::log(static_cast<double>(codes.size()));
    }
    // The gradient by the logits of a quantized + h kl + sum of v weights.
    std::vector<double> by_logits(double a, double h, const std::vector<double> &v) const {
        const double mean = dot(soft.weights, upstream(a, v)),
                     entropy = dot(posterior.weights, posterior.logs);
        std::vector<double> gradient = upstream(a, v);
        for (size_t k = 0; k < codes.size(); ++k) {
            gradient[k] = soft.weights[k] * (gradient[k] - mean) / temperature;
            if (posterior.weights[k] > 0)
                gradient[k] += h * posterior.weights[k] * (posterior.logs[k] - entropy);
        }
        return gradient;
    }
    // The same of ReinMax, for noise of 0.
    std::vector<double> by_logits_of_reinmax(double a, double h, const std::vector<double> &v,
                                             size_t index) const {
        const auto c = upstream(a, v);
        std::vector<double> half = soft.weights, gradient = by_logits(0, h, std::vector<double>(c.size()));
        for (size_t k = 0; k < half.size(); ++k)
            half[k] = (half[k] + (k == index)) / 2;
        const double middle = dot(half, c), mean = dot(posterior.weights, c);
        for (size_t k = 0; k < half.size(); ++k)
            gradient[k] += 2 * half[k] * (c[k] - middle) - posterior.weights[k] * (c[k] - mean) / 2;
        return gradient;
    }
    // Whether an index may be drawn by u.
    bool draws(size_t index, double u) const {
        double below = 0;
        for (size_t k = 0; k < index; ++k)
            below += posterior.weights[k];
        return posterior.weights[index] > 0 && below <= u + 2e-6 &&
               below + posterior.weights[index] >= u - 2e-6;
    }
    double by_temperature(double a, const std::vector<double> &v) const {
        return -dot(by_logits(a, 0, v), scores) / temperature;
    }

  private:
    std::vector<double> upstream(double a, std::vector<double> v) const {
        for (size_t k = 0; k < codes.size(); ++k)
            v[k] += a * codes[k];
        return v;
    }
    Softmax tempered(const std::vector<double> &noise) {
        std::vector<double> divided;
        for (size_t k = 0; k < scores.size(); ++k) {
            scores[k] += noise[k];
            divided.push_back(scores[k] / temperature);
        }
        return Softmax(divided);
    }
};

} // namespace truth
