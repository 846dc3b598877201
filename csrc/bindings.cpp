// The Python module fqvae_kernels._native. Tensors come as addresses and sizes: nothing of PyTorch's C++ is
// used, so that one build serves every release of it. The caller, backends/cpu.py, answers for types, lengths
// and contiguity.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cuda/approximate.h"
#include "row/forward.h"

namespace py = pybind11;
using namespace fqvae;

namespace {

using Address = uintptr_t;
template <class T> T *at(Address address) { return reinterpret_cast<T *>(address); }

Problem problem(Address input, int dtype, bool is_logits, Address codebook, int64_t rows, int64_t codes,
                int64_t codebooks, uint64_t seed, uint64_t row_offset, double temperature, bool hard) {
    if (dtype < 0 || dtype > 3)
        throw std::invalid_argument("dtype must be 0, 1, 2 or 3, got " + std::to_string(dtype));
    if (codes < 1 || codes > (int64_t(1) << 24))
        throw std::invalid_argument("codes must be in [1, 2**24], got " + std::to_string(codes));
    if (rows < 0 || codebooks < 1 || rows % codebooks != 0)
        throw std::invalid_argument("rows must be a multiple of codebooks, got " + std::to_string(rows) +
                                    " and " + std::to_string(codebooks));
    if (!(temperature > 0))
        throw std::invalid_argument("temperature must be above 0, got " + std::to_string(temperature));
    return {at<const void>(input),
            static_cast<DType>(dtype),
            is_logits,
            at<const void>(codebook),
            rows,
            static_cast<int>(codes),
            codebooks,
            seed,
            row_offset,
            temperature,
            hard};
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
    m.attr("ROW_SUMS") = kRowSums;
    instruction_set(); // an impossible FQVAE_CPU_ISA is said now, as an ImportError

    m.def("gumbel_forward", [](Address input, int dtype, bool is_logits, Address codebook, int64_t rows,
                               int64_t codes, int64_t codebooks, uint64_t seed, uint64_t row_offset,
                               double temperature, bool hard, Address quantized, Address indices, Address kl,
                               Address weights, Address sums, int threads) {
        const Problem p = problem(input, dtype, is_logits, codebook, rows, codes, codebooks, seed, row_offset,
                                  temperature, hard);
        py::gil_scoped_release release;
        gumbel_forward(
            p, {at<void>(quantized), at<int64_t>(indices), at<void>(kl), at<void>(weights), at<void>(sums)},
            threads);
    });
    m.def("gumbel_backward",
          [](Address input, int dtype, bool is_logits, Address codebook, int64_t rows, int64_t codes,
             int64_t codebooks, uint64_t seed, uint64_t row_offset, double temperature, bool hard,
             Address indices, Address sums, Address grad_quantized, Address grad_kl, Address grad_weights,
             Address grad_input, Address grad_codebook, Address grad_temperature, int threads) {
              const Problem p = problem(input, dtype, is_logits, codebook, rows, codes, codebooks, seed,
                                        row_offset, temperature, hard);
              py::gil_scoped_release release;
              gumbel_backward(p,
                              {at<int64_t>(indices), at<void>(sums), at<void>(grad_quantized),
                               at<void>(grad_kl), at<void>(grad_weights), at<void>(grad_input), false},
                              at<void>(grad_codebook), at<double>(grad_temperature), threads);
          });
    m.def("nearest_forward", [](Address z, int dtype, Address codebook, int64_t rows, int64_t codes,
                                int64_t codebooks, Address quantized, Address indices, int threads) {
        const Problem p = problem(z, dtype, false, codebook, rows, codes, codebooks, 0, 0, 1, true);
        py::gil_scoped_release release;
        nearest_forward(p, {at<void>(quantized), at<int64_t>(indices)}, threads);
    });
    m.def("gumbel_noise", [](uint64_t seed, uint64_t row_offset, int64_t rows, int codes, bool is_double,
                             Address out, int threads) {
        py::gil_scoped_release release;
        gumbel_noise(seed, row_offset, rows, codes, is_double, at<void>(out), threads);
    });
    m.def("gumbel_from_words", [](Address words, int64_t count, bool is_double, Address out) {
        py::gil_scoped_release release;
        gumbel_from_words(at<uint32_t>(words), count, is_double, at<void>(out));
    });
    m.def("philox_words",
          [](uint64_t seed, uint64_t row_offset, int64_t rows, int codes, Address out, int threads) {
              py::gil_scoped_release release;
              philox_words(seed, row_offset, rows, codes, at<uint32_t>(out), threads);
          });
    m.def("philox_floor", [](uint64_t seed, int64_t rows, int codes, int threads) {
        py::gil_scoped_release release;
        return philox_floor(seed, rows, codes, threads);
    });

    m.def("instruction_sets", &instruction_sets);
    m.def("instruction_set", &instruction_set);
    m.def("use_instruction_set", &use_instruction_set);
    m.def("set_device_error", [](const std::string &error) { // of the instruction set "device": for tests
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
