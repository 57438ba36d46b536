// Programmatic dependent launch: a kernel's blocks may be resident while the kernel before it ends,
// and let the next one's in at once, so that a matrix product fetches weights meanwhile.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "device/limits.h"

namespace quantloom::kernels {

// Before anything is read that the kernel before writes, and before anything is written.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// overlap: such a launch, of a kernel that waits as above says, or an ordinary one, as it always is
// before Hopper. cluster: blocks of one; 1 where the device knows none.
template <class... Parameters, class... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), dim3 grid, int cluster, int threads,
                            std::size_t shared_bytes, bool overlap, cudaStream_t stream,
                            Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  DeviceLimits limits;
  if (overlap && device_limits(limits) && limits.capability >= 90) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, int threads,
                          std::size_t shared_bytes, bool overlap, cudaStream_t stream,
                          Arguments&&... arguments) {
  return launch_clusters(kernel, grid, 1, threads, shared_bytes, overlap, stream, arguments...);
}

template <class... Parameters, class... Arguments>
cudaError_t launch_overlapped(void (*kernel)(Parameters...), dim3 grid, int threads,
                              std::size_t shared_bytes, cudaStream_t stream,
                              Arguments&&... arguments) {
  return launch_kernel(kernel, grid, threads, shared_bytes, true, stream, arguments...);
}

}  // namespace quantloom::kernels
