// The Python module fqvae_kernels._cuda: starts kernels by name, with arguments that Python has packed
// (fqvae_kernels/backends/_cuda). Nothing of PyTorch's C++ is used, and no device is touched before the first
// launch, so that the module can be imported where there is no driver.
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "../row/forward.h"
#include "arguments.h"

namespace py = pybind11;
using namespace fqvae;

// The host's names of the kernels, which the CUDA runtime knows them by.
extern "C" {
void forward_z_float(ForwardArguments);
void forward_z_double(ForwardArguments);
void forward_logits_float(ForwardArguments);
void forward_logits_double(ForwardArguments);
void backward_z_float(BackwardArguments);
void backward_z_general_float(BackwardArguments);
void backward_z_general_double(BackwardArguments);
void backward_logits_general_float(BackwardArguments);
void backward_logits_general_double(BackwardArguments);
void nearest_float(NearestArguments);
void nearest_double(NearestArguments);
void noise_float(NoiseArguments);
void noise_double(NoiseArguments);
void reduce(ReduceArguments);
}

namespace {

struct Kernel {
    std::string_view name;
    const void *host;
    size_t argument_bytes;
};

template <class Arguments> Kernel kernel(std::string_view name, void (*host)(Arguments)) {
    return {name, reinterpret_cast<const void *>(host), sizeof(Arguments)};
}

const Kernel kKernels[] = {
    kernel("forward_z_float", forward_z_float),
    kernel("forward_z_double", forward_z_double),
    kernel("forward_logits_float", forward_logits_float),
    kernel("forward_logits_double", forward_logits_double),
    kernel("backward_z_float", backward_z_float),
    kernel("backward_z_general_float", backward_z_general_float),
    kernel("backward_z_general_double", backward_z_general_double),
    kernel("backward_logits_general_float", backward_logits_general_float),
    kernel("backward_logits_general_double", backward_logits_general_double),
    kernel("nearest_float", nearest_float),
    kernel("nearest_double", nearest_double),
    kernel("noise_float", noise_float),
    kernel("noise_double", noise_double),
    kernel("reduce", reduce),
};

const Kernel &find(std::string_view name) {
    for (const Kernel &each : kKernels)
        if (each.name == name)
            return each;
    throw std::invalid_argument("there is no kernel " + std::string(name));
}

void check(cudaError_t error, std::string_view what) {
    if (error != cudaSuccess)
        throw std::runtime_error("fqvae_kernels: " + std::string(what) + ": " + cudaGetErrorString(error) +
                                 " (" + cudaGetErrorName(error) + ")");
}

// Makes a device the current one, and the one before it again.
class OnDevice {
  public:
    explicit OnDevice(int device) : device_(device) {
        check(cudaGetDevice(&before_), "no current device");
        if (before_ != device_)
            check(cudaSetDevice(device_), "device " + std::to_string(device_) + " cannot be used");
    }
    ~OnDevice() {
        if (before_ != device_)
            cudaSetDevice(before_);
    }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;

  private:
    int before_ = 0, device_;
};

void launch(std::string_view name, unsigned blocks_x, unsigned blocks_y, size_t shared,
            std::string_view arguments, int device, uintptr_t stream) {
    const Kernel &kernel = find(name);
    if (arguments.size() != kernel.argument_bytes)
        throw std::invalid_argument(std::string(name) + " takes " + std::to_string(kernel.argument_bytes) +
                                    " bytes of arguments, got " + std::to_string(arguments.size()));
    const OnDevice on_device(device);
    std::string copy(arguments); // cudaLaunchKernel wants to be able to write to it
    void *parameters[] = {copy.data()};
    check(cudaLaunchKernel(kernel.host, dim3(blocks_x, blocks_y), dim3(kThreads), parameters, shared,
                           reinterpret_cast<cudaStream_t>(stream)),
          "kernel " + std::string(name) + " cannot be launched");
    check(cudaGetLastError(), "kernel " + std::string(name) + " failed");
}

} // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() =
        "The compiled CUDA kernels of fqvae_kernels; backends/cuda.py is the face that belongs to them.";
    m.attr("ROW_SUMS") = kRowSums;
    m.attr("ARCHITECTURES") = FQVAE_CUDA_ARCHITECTURES;
    m.attr("CUDA_VERSION") = CUDART_VERSION;
    m.def("launch", &launch);
}
