// For the rooms that call CUDA: every call and every launch is checked, and a failure is a
// quantloom::Error. Only files compiled with QUANTLOOM_WITH_CUDA include this.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <initializer_list>
#include <new>
#include <span>
#include <utility>

#include "base/faults.h"
#include "device/limits.h"
#include "device/runtime.h"

namespace quantloom::device {

constexpr int max_devices = kernels::most_devices;  // GPUs of a process that are used

// Throws unless `status` is success: out_of_memory for cudaErrorMemoryAllocation, device for all
// else. A fault that the context does not survive poisons the current device.
void check(cudaError_t status, const char* call);
// The same of a call about GPU `index` while another one is current, or none.
void check(cudaError_t status, const char* call, int index);

// Errors: device after a fork of a process that had started CUDA, and after a fault on the device.
void require_alive(int index);

// checked("cudaMemcpyAsync", cudaMemcpyAsync, ...) or QUANTLOOM_CUDA_CALL(cudaMemcpyAsync, ...).
template <typename Function, typename... Arguments>
void checked(const char* name, Function function, Arguments&&... arguments) {
  if (faults::fails(faults::Point::cuda_call)) {
    check(cudaErrorOperatingSystem, name);
    return;
  }
  check(function(std::forward<Arguments>(arguments)...), name);
}
#define QUANTLOOM_CUDA_CALL(function, ...) \
  ::quantloom::device::checked(#function, function, __VA_ARGS__)

struct Shape {
  const char* name;
  std::int64_t value;
};

// After a launch, with what the launching function returned (cudaGetLastError()).
// Errors: device naming the kernel, the tensors whose weights it reads, and its shapes. Under
// QUANTLOOM_DEBUG=1 it waits for the kernel, so that a fault inside it carries its name too.
void launch_check(const char* kernel, std::initializer_list<Shape> shapes, Stream stream,
                  cudaError_t status, std::span<const char* const> tensors = {});

// Makes a GPU current for a scope; after it the thread's context, or that it has none, is as
// before. Every call of the runtime that is more than a question stands in such a scope: where no
// context is current it makes one on GPU 0, of hundreds of MB, whichever GPU it is about, as
// cudaSetDevice() to go back to GPU 0 does too. So the GPU's own context is pushed and popped.
class CurrentDevice {
 public:
  // Errors: out_of_memory and device where the context cannot be had; device also after a fork or a
  // fault.
  explicit CurrentDevice(const Device& device);
  // For what goes back in destructors: false where the GPU was never used or cannot be any more,
  // and then nothing is to be called.
  CurrentDevice(const Device& device, std::nothrow_t) noexcept;
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  explicit operator bool() const { return pushed_; }

  // The GPU of this thread's innermost scope; -1 outside of any.
  static int index();

 private:
  int outer_ = -1;
  bool pushed_ = false;
};

enum class Counted {
  launch,
  host_to_device,
  device_to_host,
  device_to_device,
  allocation,
  free,
  synchronization
};
void count(Counted what);

}  // namespace quantloom::device
