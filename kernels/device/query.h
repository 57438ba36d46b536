// Whether this build's kernels run on the current device.
#pragma once

#include <cuda_runtime_api.h>

namespace quantloom::kernels {

// cudaSuccess when this build carries machine code, or PTX the driver can compile, for the current
// device; cudaErrorNoKernelImageForDevice or cudaErrorInvalidDeviceFunction when it does not.
cudaError_t query_kernel_image();

}  // namespace quantloom::kernels
