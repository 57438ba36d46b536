// What the emulated GPUs say of themselves: an H100's limits with few processors, or another's
// shared memory.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>

#include "runtime/context.h"
#include "runtime/tensor_maps.h"

using namespace quantloom::emulator;

namespace {

constexpr int cuda_version = 13000;
constexpr int l2_bytes = 50 << 20;

bool is_there(int device) { return device >= 0 && device < settings().devices; }

cudaError_t attribute(cudaDeviceAttr which, int& value) {
  switch (which) {
    case cudaDevAttrComputeCapabilityMajor:
      value = settings().capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      value = settings().capability % 10;
      return cudaSuccess;
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrUnifiedAddressing:
      value = 1;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      value = settings().processors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      value = shared_default_bytes;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      value = static_cast<int>(shared_optin_bytes());
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      value = static_cast<int>(settings().shared_processor_bytes);
      return cudaSuccess;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      value = shared_reserved_bytes;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
      value = 1024;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      value = processor_threads;
      return cudaSuccess;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      value = processor_blocks;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      value = 32;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      value = l2_bytes;
      return cudaSuccess;
    default:
      say("cudaDeviceGetAttribute: attribute " + std::to_string(which) + " is not known");
      return cudaErrorNotSupported;
  }
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return answer(Calls::information, [&] {
    *count = settings().devices;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return answer(Calls::information, [&] {
    *device = thread_device().index;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return answer(Calls::information, [&] {
    if (!is_there(device)) return cudaErrorInvalidDevice;
    choose_device(device);
    return cudaSuccess;
  });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = cuda_version;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = cuda_version;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
  return answer(Calls::information, [&] {
    return is_there(device) ? attribute(which, *value) : cudaErrorInvalidDevice;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return answer(Calls::information, [&] {
    if (!is_there(device)) return cudaErrorInvalidDevice;
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name,
                  "emulated GPU (compute capability %d.%d, on the CPU)", settings().capability / 10,
                  settings().capability % 10);
    properties->totalGlobalMem = settings().memory;
    properties->sharedMemPerBlock = shared_default_bytes;
    properties->sharedMemPerBlockOptin = shared_optin_bytes();
    properties->sharedMemPerMultiprocessor = settings().shared_processor_bytes;
    properties->reservedSharedMemPerBlock = shared_reserved_bytes;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = processor_threads;
    properties->maxBlocksPerMultiProcessor = processor_blocks;
    const int block[3] = {1024, 1024, 64}, grid[3] = {2147483647, 65535, 65535};
    std::memcpy(properties->maxThreadsDim, block, sizeof block);
    std::memcpy(properties->maxGridSize, grid, sizeof grid);
    properties->totalConstMem = 64 << 10;
    properties->major = settings().capability / 10;
    properties->minor = settings().capability % 10;
    properties->multiProcessorCount = settings().processors;
    properties->l2CacheSize = l2_bytes;
    properties->unifiedAddressing = 1;
    properties->cooperativeLaunch = 1;
    properties->clusterLaunch = settings().capability >= 90;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function,
                                             unsigned int /*version*/, unsigned long long /*flags*/,
                                             cudaDriverEntryPointQueryResult* result) {
  return answer(Calls::information, [&] {
    *function = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0
                    ? reinterpret_cast<void*>(&encode_tiled)
                    : context_function(symbol);
    if (result != nullptr) {
      *result =
          *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    }
    return cudaSuccess;
  });
}

}  // extern "C"
