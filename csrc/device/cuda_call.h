// For the rooms that call CUDA: every call and every launch is checked, and a failure is a
// quantloom::Error. Only files compiled with QUANTLOOM_WITH_CUDA include this.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <initializer_list>
#include <utility>

#include "base/faults.h"
#include "device/runtime.h"

namespace quantloom::device {

// Throws unless `status` is success: out_of_memory for cudaErrorMemoryAllocation, device for all
// else. A fault that the context does not survive poisons the current device.
void check(cudaError_t status, const char* call);

// checked("cudaMemcpyAsync", cudaMemcpyAsync, ...) or CUDA_CALL(cudaMemcpyAsync, ...).
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
// Errors: device naming the kernel and its shapes. Under QUANTLOOM_DEBUG=1 it waits for the kernel,
// so that a fault inside it carries its name too.
void launch_check(const char* kernel, std::initializer_list<Shape> shapes, Stream stream,
                  cudaError_t status);

// Makes a device current for a scope. Its destructor restores the one before. Errors: device, also
// after a fork or a fault.
class CurrentDevice {
 public:
  explicit CurrentDevice(const Device& device);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = -1;
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
