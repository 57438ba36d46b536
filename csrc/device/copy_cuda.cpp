#if defined(QUANTLOOM_WITH_CUDA)

#include <cstring>

#include "device/cuda_call.h"
#include "device/runtime.h"

namespace quantloom::device {

void copy(void* to, const Device& to_device, const void* from, const Device& from_device,
          std::size_t bytes, Stream stream) {
  if (bytes == 0) return;
  const bool to_cpu = to_device.type == DeviceType::cpu;
  const bool from_cpu = from_device.type == DeviceType::cpu;
  if (to_cpu && from_cpu) {
    std::memcpy(to, from, bytes);
    return;
  }
  const Device& worker = to_cpu ? from_device : to_device;
  require_usable(to_device);
  require_usable(from_device);
  const CurrentDevice current(worker);
  if (!to_cpu && !from_cpu && to_device.index != from_device.index) {
    count(Counted::device_to_device);
    QUANTLOOM_CUDA_CALL(cudaMemcpyPeerAsync, to, to_device.index, from, from_device.index, bytes,
                        stream);
    return;
  }
  count(to_cpu     ? Counted::device_to_host
        : from_cpu ? Counted::host_to_device
                   : Counted::device_to_device);
  QUANTLOOM_CUDA_CALL(cudaMemcpyAsync, to, from, bytes,
                      to_cpu     ? cudaMemcpyDeviceToHost
                      : from_cpu ? cudaMemcpyHostToDevice
                                 : cudaMemcpyDeviceToDevice,
                      stream);
}

void fill_zero(void* to, const Device& device, std::size_t bytes, Stream stream) {
  if (bytes == 0) return;
  if (device.type == DeviceType::cpu) {
    std::memset(to, 0, bytes);
    return;
  }
  require_usable(device);
  const CurrentDevice current(device);
  QUANTLOOM_CUDA_CALL(cudaMemsetAsync, to, 0, bytes, stream);
}

}  // namespace quantloom::device

#endif
