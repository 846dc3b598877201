// The Python module fqvae_kernels._cuda: starts kernels by their numbers in KERNELS, with arguments that
// Python has packed (fqvae_kernels/backends/_cuda). Nothing of PyTorch's C++ is used, and no device is
// touched before the first launch, so that the module can be imported where there is no driver.
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <pybind11/pybind11.h>

#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "../row/stats.h"
#include "arguments.h"
#include "on_device.h"

namespace py = pybind11;
using namespace fqvae;

// The host's names of the kernels, which the CUDA runtime knows them by.
extern "C" {
void forward_z_float(ForwardArguments);
void forward_z_double(ForwardArguments);
void forward_z_table_float(ForwardArguments);
void forward_z_slopes_float(ForwardArguments);
void forward_z_slopes_double(ForwardArguments);
void forward_logits_float(ForwardArguments);
void forward_logits_double(ForwardArguments);
void backward_z_float(BackwardArguments);
void backward_z_general_float(BackwardArguments);
void backward_z_general_double(BackwardArguments);
void backward_logits_general_float(BackwardArguments);
void backward_logits_general_double(BackwardArguments);
void forward_drawn_z_float(ForwardArguments);
void forward_drawn_z_double(ForwardArguments);
void forward_drawn_logits_float(ForwardArguments);
void forward_drawn_logits_double(ForwardArguments);
void backward_drawn_z_float(BackwardArguments);
void backward_drawn_z_double(BackwardArguments);
void backward_drawn_logits_float(BackwardArguments);
void backward_drawn_logits_double(BackwardArguments);
void backward_slopes_float(SlopesArguments);
void backward_slopes_double(SlopesArguments);
void posterior_float(PosteriorArguments);
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
    kernel("forward_z_table_float", forward_z_table_float),
    kernel("forward_z_slopes_float", forward_z_slopes_float),
    kernel("forward_z_slopes_double", forward_z_slopes_double),
    kernel("forward_logits_float", forward_logits_float),
    kernel("forward_logits_double", forward_logits_double),
    kernel("backward_z_float", backward_z_float),
    kernel("backward_z_general_float", backward_z_general_float),
    kernel("backward_z_general_double", backward_z_general_double),
    kernel("backward_logits_general_float", backward_logits_general_float),
    kernel("backward_logits_general_double", backward_logits_general_double),
    kernel("forward_drawn_z_float", forward_drawn_z_float),
    kernel("forward_drawn_z_double", forward_drawn_z_double),
    kernel("forward_drawn_logits_float", forward_drawn_logits_float),
    kernel("forward_drawn_logits_double", forward_drawn_logits_double),
    kernel("backward_drawn_z_float", backward_drawn_z_float),
    kernel("backward_drawn_z_double", backward_drawn_z_double),
    kernel("backward_drawn_logits_float", backward_drawn_logits_float),
    kernel("backward_drawn_logits_double", backward_drawn_logits_double),
    kernel("backward_slopes_float", backward_slopes_float),
    kernel("backward_slopes_double", backward_slopes_double),
    kernel("posterior_float", posterior_float),
    kernel("nearest_float", nearest_float),
    kernel("nearest_double", nearest_double),
    kernel("noise_float", noise_float),
    kernel("noise_double", noise_double),
    kernel("reduce", reduce),
};

void check(cudaError_t error, std::string_view who, std::string_view what = "") {
    if (error != cudaSuccess)
        throw std::runtime_error("fqvae_kernels: " + std::string(who) + std::string(what) + ": " +
                                 cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}

// The CUDA runtime as OnDevice wants it.
struct CudaRuntime {
    static int current() {
        int device = 0;
        check(cudaGetDevice(&device), "no current device");
        return device;
    }
    static void make_current(int device) {
        check(cudaSetDevice(device), "device " + std::to_string(device), " cannot be used");
    }
    static void try_make_current(int device) noexcept { cudaSetDevice(device); }
    static bool has_context(int device) {
        // Only the driver knows. A launch needs one, so it is there. A device's number is its CUdevice.
        using GetState = int (*)(int device, unsigned *flags, int *active);
        static const auto get_state = reinterpret_cast<GetState>(
            dlsym(dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL), "cuDevicePrimaryCtxGetState"));
        unsigned flags = 0;
        int active = 0;
        return get_state && get_state(device, &flags, &active) == 0 && active != 0;
    }
};

// The newest CUDA that the driver knows, 13000 for 13.0; 0 where there is no driver. Opens no context.
int driver_version() {
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

void launch(size_t number, unsigned blocks_x, unsigned blocks_y, size_t shared, std::string_view arguments,
            int device, uintptr_t stream) {
    if (number >= std::size(kKernels))
        throw std::invalid_argument("there is no kernel " + std::to_string(number));
    const Kernel &kernel = kKernels[number];
    if (arguments.size() != kernel.argument_bytes)
        throw std::invalid_argument(std::string(kernel.name) + " takes " +
                                    std::to_string(kernel.argument_bytes) + " bytes of arguments, got " +
                                    std::to_string(arguments.size()));
    void *parameters[] = {const_cast<char *>(arguments.data())}; // which CUDA copies
    // A launch waits where the stream's queue is full, and other threads of Python need not.
    const py::gil_scoped_release released;
    CudaRuntime runtime;
    const OnDevice on_device(runtime, device);
    check(cudaLaunchKernel(kernel.host, dim3(blocks_x, blocks_y), dim3(kThreads), parameters, shared,
                           reinterpret_cast<cudaStream_t>(stream)),
          kernel.name, " cannot be launched");
    check(cudaGetLastError(), kernel.name, " failed");
}

} // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() =
        "The compiled CUDA kernels of fqvae_kernels; backends/cuda.py is the face that belongs to them.";
    m.attr("STATS") = static_cast<int>(kStats);
    m.attr("ARCHITECTURES") = FQVAE_CUDA_ARCHITECTURES;
    m.attr("CUDA_VERSION") = CUDART_VERSION;
    py::tuple kernels(std::size(kKernels));
    for (size_t i = 0; i < std::size(kKernels); ++i)
        kernels[i] = py::str(kKernels[i].name.data(), kKernels[i].name.size());
    m.attr("KERNELS") = kernels;
    m.def("driver_version", &driver_version);
    m.def("launch", &launch);
}
