// The Python module fqvae_kernels._native. A pass comes as the bytes of one struct, whose tensors are
// addresses: nothing of PyTorch's C++ is used, so that one build serves every release of it. The caller,
// backends/cpu.py, answers for types, lengths and contiguity.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "row/approximate.h"
#include "row/stats.h"

namespace py = pybind11;
using namespace fqvae;

namespace {

using Address = uintptr_t;
template <class T> T *at(Address address) { return reinterpret_cast<T *>(address); }

// The number of codes as the kernels take it. Throws std::invalid_argument, in Python a ValueError.
int checked_codes(int64_t codes) {
    if (codes < 1 || codes > (int64_t(1) << 24))
        throw std::invalid_argument("codes must be in [1, 2**24], got " + std::to_string(codes));
    return static_cast<int>(codes);
}

// A table (latents, codes) for the codes of these rows.
Usage checked_usage(int64_t rows, int64_t latents, int64_t codes, Address table) {
    if (rows < 0 || latents < 1 || rows % latents != 0)
        throw std::invalid_argument("rows must be a multiple of latents, got " + std::to_string(rows) +
                                    " and " + std::to_string(latents));
    return {at<int64_t>(table), latents, checked_codes(codes)};
}

// What Python packs for a pass, in this order.
struct ForwardArguments {
    Call call;
    Outputs out;
};
struct BackwardPass {
    Call call;
    BackwardArguments arguments;
};

// The struct in these bytes. What would make the kernels read or write elsewhere is refused.
template <class Pass> Pass unpack(const py::bytes &packed, const char *name) {
    const std::string_view bytes = packed;
    if (bytes.size() != sizeof(Pass))
        throw std::invalid_argument(std::string(name) + " takes " + std::to_string(sizeof(Pass)) +
                                    " bytes of arguments, got " + std::to_string(bytes.size()));
    Pass pass;
    memcpy(&pass, bytes.data(), sizeof pass);
    const Call &call = pass.call;
    const auto dtype = static_cast<int>(call.dtype), estimator = static_cast<int>(call.estimator);
    if (dtype < 0 || dtype > 3)
        throw std::invalid_argument("dtype must be 0, 1, 2 or 3, got " + std::to_string(dtype));
    if (estimator < 0 || estimator > 3)
        throw std::invalid_argument("estimator must be 0, 1, 2 or 3, got " + std::to_string(estimator));
    checked_codes(call.codes);
    if (call.rows < 0 || call.codebooks < 1 || call.rows % call.codebooks != 0)
        throw std::invalid_argument("rows must be a multiple of codebooks, got " + std::to_string(call.rows) +
                                    " and " + std::to_string(call.codebooks));
    if (!(call.temperature > 0))
        throw std::invalid_argument("temperature must be above 0, got " + std::to_string(call.temperature));
    if (call.seed_at || call.temperature_at)
        throw std::invalid_argument("seed and temperature must come by value");
    return pass;
}

py::dict build_info() {
    py::dict info;
#if defined(__clang__)
    info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
    info["compiler"] = "gcc " __VERSION__;
#else
    info["compiler"] = "unknown";
#endif
    py::list compiled;
#if defined(FQVAE_HAVE_AVX512)
    compiled.append("avx512");
#endif
#if defined(FQVAE_HAVE_AVX2)
    compiled.append("avx2");
#endif
    compiled.append("portable");
    compiled.append("scalar");
    compiled.append("device");
    info["compiled"] = compiled;
    info["pybind11"] =
        PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR);
    return info;
}

} // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The compiled kernels of fqvae_kernels; see backends/cpu.py for the face that belongs to them.";
    m.attr("STATS") = static_cast<int>(kStats);
    instruction_set(); // an impossible FQVAE_CPU_ISA is said now, as an ImportError that names it

    m.def("forward", [](const py::bytes &packed, int threads) {
        const auto pass = unpack<ForwardArguments>(packed, "forward");
        py::gil_scoped_release release;
        forward(pass.call, pass.out, threads);
    });
    m.def("backward", [](const py::bytes &packed, int threads) {
        const auto pass = unpack<BackwardPass>(packed, "backward");
        if (pass.call.estimator == Estimator::kNearest)
            throw std::invalid_argument("estimator must not be 3 (nearest) in a backward pass");
        py::gil_scoped_release release;
        backward(pass.call, pass.arguments, threads);
    });
    m.def("forward_counted", [](const py::bytes &packed, int64_t latents, Address table, int threads) {
        const auto pass = unpack<ForwardArguments>(packed, "forward_counted");
        if (pass.call.estimator != Estimator::kNearest || (pass.call.rows > 0 && !pass.out.indices))
            throw std::invalid_argument("only a pass of the estimator 3 (nearest) that gives indices counts");
        if (pass.call.codebooks != 1 && latents != 1 && latents != pass.call.codebooks)
            throw std::invalid_argument("latents must be 1 or codebooks where there are several, got " +
                                        std::to_string(latents));
        Usage usage = checked_usage(pass.call.rows, latents, pass.call.codes, table);
        py::gil_scoped_release release;
        forward_counted(pass.call, pass.out, usage, threads);
    });
    m.def("count_codes",
          [](Address indices, int64_t rows, int64_t latents, int64_t codes, Address table, int threads) {
              Usage usage = checked_usage(rows, latents, codes, table);
              py::gil_scoped_release release;
              usage.count(at<int64_t>(indices), rows, threads);
          });
    m.def("gumbel_noise", [](uint64_t seed, uint64_t row_offset, int64_t rows, int64_t codes, bool is_double,
                             Address out, int threads) {
        py::gil_scoped_release release;
        gumbel_noise(seed, row_offset, rows, checked_codes(codes), is_double, at<void>(out), threads);
    });
    m.def("gumbel_from_words", [](Address words, int64_t count, bool is_double, Address out) {
        py::gil_scoped_release release;
        gumbel_from_words(at<uint32_t>(words), count, is_double, at<void>(out));
    });
    m.def("philox_words",
          [](uint64_t seed, uint64_t row_offset, int64_t rows, int64_t codes, Address out, int threads) {
              py::gil_scoped_release release;
              philox_words(seed, row_offset, rows, checked_codes(codes), at<uint32_t>(out), threads);
          });
    m.def("philox_floor", [](uint64_t seed, int64_t rows, int64_t codes, int threads) {
        py::gil_scoped_release release;
        return philox_floor(seed, rows, checked_codes(codes), threads);
    });

    m.def("instruction_sets", &instruction_sets);
    m.def("instruction_set", &instruction_set);
    m.def("use_instruction_set", &use_instruction_set);
    m.def("set_device_error", [](const std::string &error) { // of the instruction set "device": a test hook
        const char *known[] = {"none", "up", "down", "scattered"};
        for (int i = 0; i < 4; ++i)
            if (error == known[i]) {
                device_error = static_cast<DeviceError>(i);
                return;
            }
        throw std::invalid_argument("device error must be none, up, down or scattered, got '" + error + "'");
    });
    m.def("threading_runtime", &threading_runtime);
    m.def("build_info", &build_info);
}
