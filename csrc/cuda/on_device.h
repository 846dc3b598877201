// Makes a device current for a scope, then restores the previous one. It is a template over the calls of the
// CUDA runtime that it needs, so that a test without a GPU can count them.
#pragma once

namespace fqvae {

// Runtime has:
//     int current();                               the thread's current device; 0 where none was ever set
//     void make_current(int device);               since CUDA 12 this opens a context there, 0.3 GB of memory
//     void try_make_current(int device) noexcept;  the same, whose failure is forgotten
//     bool has_context(int device);                whether this process has a context there
template <class Runtime> class OnDevice {
  public:
    OnDevice(Runtime &runtime, int device) : runtime_(runtime), before_(runtime.current()), device_(device) {
        if (before_ != device_)
            runtime_.make_current(device_);
    }
    // The device before becomes current again, unless it only was by default: a process that uses GPU 1 alone
    // would open a context on GPU 0. PyTorch sets the device before its own calls and does not mind.
    ~OnDevice() {
        if (before_ != device_ && runtime_.has_context(before_))
            runtime_.try_make_current(before_);
    }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;

  private:
    Runtime &runtime_;
    int before_, device_;
};

} // namespace fqvae
