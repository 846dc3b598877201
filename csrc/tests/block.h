// Buffers of the kernels, each its own heap block, and numbers in them in any storage type.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "../call.h"

namespace fqvae {

inline size_t bytes_of(DType dtype) {
    return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

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
inline void put(Block &block, DType dtype, size_t i, double x) {
    const auto single = static_cast<float>(x);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
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

// What `put` left there, or what a kernel wrote.
inline double get(const Block &block, DType dtype, size_t i) {
    if (dtype == DType::kFloat64)
        return const_cast<Block &>(block).as<double>()[i];
    if (dtype == DType::kFloat32)
        return static_cast<double>(const_cast<Block &>(block).as<float>()[i]);
    const uint32_t half = const_cast<Block &>(block).as<uint16_t>()[i];
    if (dtype == DType::kBFloat16) {
        const uint32_t bits = half << 16;
        float x;
        std::memcpy(&x, &bits, 4);
        return static_cast<double>(x);
    }
    const int exponent = static_cast<int>(half >> 10 & 31), mantissa = static_cast<int>(half & 1023);
    const double size = exponent == 31  ? (mantissa ? NAN : INFINITY)
                        : exponent == 0 ? std::ldexp(mantissa, -24)
                                        : std::ldexp(1024 + mantissa, exponent - 25);
    return half >> 15 ? -size : size;
}

} // namespace fqvae
