// Tensors in memory to lanes and back, for each storage type. Included by the kernels' files only, each
// compiled for its own instruction set; everything sits in an unnamed namespace so that the linker cannot mix
// them up.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernel_table.h"

namespace fqvae {
namespace {

struct Float16 {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

inline float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

// Conversions work on the bits, so that the flushing of denormal numbers does not touch them.
inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(BFloat16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(Float16 x) {
    uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu;
    if (rest >= 0x7c00u) // infinity, NaN
        return from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest >= 0x0400u) // normal: move the exponent's bias from 15 to 127
        return from_bits(sign | ((rest << 13) + (112u << 23)));
    if (rest == 0)
        return from_bits(sign);
    int shift = __builtin_clz(rest) - 21; // denormal: normalise
    return from_bits(sign | ((113u - static_cast<uint32_t>(shift)) << 23) | ((rest << shift & 0x3ffu) << 13));
}

inline void narrow(float x, float *out) { *out = x; }
inline void narrow(double x, double *out) { *out = x; }
inline void narrow(float x, BFloat16 *out) { // to nearest, ties to even
    uint32_t bits = to_bits(x);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out->bits = static_cast<uint16_t>(nan ? 0x7fc0u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
inline void narrow(float x, Float16 *out) { // to nearest, ties to even
    uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu, half;
    if (rest > 0x7f800000u)
        half = 0x7e00u;
    else if (rest >= 0x477ff000u) // 65520 and more: infinity
        half = 0x7c00u;
    else if (rest >= 0x38800000u) // normal
        half = (rest - (112u << 23) + 0x0fffu + (rest >> 13 & 1u)) >> 13;
    else if (rest < 0x33000000u) // less than half of the smallest denormal
        half = 0;
    else { // denormal: the mantissa with its leading 1, shifted into place
        uint32_t mantissa = (rest & 0x7fffffu) | 0x800000u, shift = 126u - (rest >> 23);
        uint32_t kept = mantissa >> shift, dropped = mantissa & ((1u << shift) - 1u),
                 middle = 1u << (shift - 1u);
        half = kept + (dropped > middle || (dropped == middle && (kept & 1u)));
    }
    out->bits = static_cast<uint16_t>(sign | half);
}

// Calls body with a null pointer of the storage type that goes with Real.
template <class Real, class Body> void with_storage(DType dtype, Body body) {
    if constexpr (sizeof(Real) == 8)
        body(static_cast<double *>(nullptr));
    else if (dtype == DType::kFloat16)
        body(static_cast<Float16 *>(nullptr));
    else if (dtype == DType::kBFloat16)
        body(static_cast<BFloat16 *>(nullptr));
    else
        body(static_cast<float *>(nullptr));
}

// Where a group of rows lies: rows first, first + stride ... of which `count` are in use, one to a lane.
struct Rows {
    int64_t first, stride;
    int count;
};

// The lanes with a row, of those in `usable`.
template <class L> typename L::M usable_rows(const Rows &rows, typename L::M usable) {
    if (rows.count == L::width)
        return usable;
    typename L::Real there[L::width] = {};
    for (int i = 0; i < rows.count; ++i)
        there[i] = 1;
    const typename L::M with_row = L::less(L::set(0), L::load(there));
    return usable & with_row;
}

template <class L> class Memory {
    using Real = typename L::Real;
    using F = typename L::F;

  public:
    // Lanes without a row become `elsewhere`. A null pointer gives zeros.
    static F load(const void *base, DType dtype, const Rows &rows, Real elsewhere = 0) {
        if (base == nullptr)
            return L::set(0);
        bool direct = rows.stride == 1 && rows.count == L::width && is_real(dtype);
        if (direct)
            return L::load(static_cast<const Real *>(base) + rows.first);
        Real lanes[L::width];
        L::store(lanes, L::set(elsewhere));
        with_storage<Real>(dtype, [&](auto *type) {
            auto *from = static_cast<decltype(type)>(const_cast<void *>(base)) + rows.first;
            for (int i = 0; i < rows.count; ++i)
                lanes[i] = widen(from[i * rows.stride]);
        });
        return L::load(lanes);
    }

    static void store(void *base, DType dtype, const Rows &rows, F x) {
        if (rows.stride == 1 && rows.count == L::width && is_real(dtype))
            return L::store(static_cast<Real *>(base) + rows.first, x);
        Real lanes[L::width];
        L::store(lanes, x);
        with_storage<Real>(dtype, [&](auto *type) {
            auto *to = static_cast<decltype(type)>(base) + rows.first;
            for (int i = 0; i < rows.count; ++i)
                narrow(lanes[i], to + i * rows.stride);
        });
    }

    // Columns first ... first+count-1 of a (rows, columns) matrix, to tile[k * width + lane] and back.
    static void load_tile(const void *base, DType dtype, const Rows &rows, int64_t columns, int first,
                          int count, Real *tile) {
        int done = 0;
        if constexpr (L::loads_columns) {
            if (rows.count == L::width && is_real(dtype)) {
                const Real *from = static_cast<const Real *>(base) + rows.first * columns + first;
                const int64_t next = L::width * rows.stride * columns; // where the next group's rows begin
                for (; done + 4 <= count; done += 4) {
                    F four[4];
                    if (done % 16 == 0) { // so short are the pieces that no processor sees what will come
                        FQVAE_UNROLL
                        for (int i = 0; i < L::width; ++i)
                            prefetch(from + done, next + i * rows.stride * columns);
                    }
                    L::load_columns(from + done, rows.stride * columns, four);
                    FQVAE_UNROLL
                    for (int i = 0; i < 4; ++i)
                        L::store(tile + (done + i) * L::width, four[i]);
                }
            }
        }
        if (done == count)
            return;
        if (rows.count < L::width)
            memset(tile, 0, sizeof(Real) * static_cast<size_t>(count) * L::width);
        with_storage<Real>(dtype, [&](auto *type) {
            for (int i = 0; i < rows.count; ++i) {
                auto *from = static_cast<decltype(type)>(const_cast<void *>(base)) +
                             (rows.first + i * rows.stride) * columns + first;
                for (int k = done; k < count; ++k)
                    tile[k * L::width + i] = widen(from[k]);
            }
        });
    }

    static void store_tile(void *base, DType dtype, const Rows &rows, int64_t columns, int first, int count,
                           const Real *tile) {
        int done = 0;
        if constexpr (L::loads_columns) {
            if (rows.count == L::width && is_real(dtype)) {
                Real *to = static_cast<Real *>(base) + rows.first * columns + first;
                for (; done + 4 <= count; done += 4) {
                    F four[4];
                    FQVAE_UNROLL
                    for (int i = 0; i < 4; ++i)
                        four[i] = L::load(tile + (done + i) * L::width);
                    L::store_columns(to + done, rows.stride * columns, four);
                }
            }
        }
        if (done == count)
            return;
        with_storage<Real>(dtype, [&](auto *type) {
            for (int i = 0; i < rows.count; ++i) {
                auto *to =
                    static_cast<decltype(type)>(base) + (rows.first + i * rows.stride) * columns + first;
                for (int k = done; k < count; ++k)
                    narrow(tile[k * L::width + i], to + k);
            }
        });
    }

    // A one at each row's index, zeros elsewhere; `no_value` in rows that are not usable.
    static void store_one_hot(void *base, DType dtype, const Rows &rows, int64_t columns,
                              const uint32_t *indices, const bool *usable, Real no_value) {
        with_storage<Real>(dtype, [&](auto *type) {
            for (int i = 0; i < rows.count; ++i) {
                auto *to = static_cast<decltype(type)>(base) + (rows.first + i * rows.stride) * columns;
                const Real elsewhere = usable[i] ? 0 : no_value;
                for (int64_t k = 0; k < columns; ++k)
                    narrow(elsewhere, to + k);
                if (usable[i])
                    narrow(Real(1), to + indices[i]);
            }
        });
    }

    // An address beyond the end does no harm, but no pointer may be formed to it.
    FQVAE_INLINE static void prefetch(const Real *p, int64_t distance) {
        __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<uintptr_t>(p) +
                                                          static_cast<uintptr_t>(distance) * sizeof(Real)));
    }

    static bool is_real(DType dtype) {
        return dtype == (sizeof(Real) == 8 ? DType::kFloat64 : DType::kFloat32);
    }
};

} // namespace
} // namespace fqvae
