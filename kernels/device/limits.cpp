#include "device/limits.h"

#include <cuda_runtime_api.h>

#include <mutex>

namespace quantloom::kernels {

bool device_limits(DeviceLimits& limits) {
  static std::mutex mutex;
  static DeviceLimits known[most_devices];
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= most_devices) return false;
  const std::lock_guard lock(mutex);
  DeviceLimits& read = known[device];
  if (read.capability == 0) {
    DeviceLimits asked;
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&asked.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                               device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&asked.processors, cudaDevAttrMultiProcessorCount, device) !=
            cudaSuccess) {
      return false;
    }
    asked.capability = 10 * major + minor;
    read = asked;
  }
  limits = read;
  return true;
}

}  // namespace quantloom::kernels
