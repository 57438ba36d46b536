// Programmatic dependent launch: a kernel's blocks may be resident while the kernel before it ends,
// and let the next one's in at once, so that a matrix product fetches weights meanwhile.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace quantloom::kernels {

// Before anything is read that the kernel before writes, and before anything is written.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// overlap: such a launch, of a kernel that waits as above says, or an ordinary one.
template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, int threads,
                          std::size_t shared_bytes, bool overlap, cudaStream_t stream,
                          Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

template <class... Parameters, class... Arguments>
cudaError_t launch_overlapped(void (*kernel)(Parameters...), dim3 grid, int threads,
                              std::size_t shared_bytes, cudaStream_t stream,
                              Arguments&&... arguments) {
  return launch_kernel(kernel, grid, threads, shared_bytes, true, stream, arguments...);
}

}  // namespace quantloom::kernels
