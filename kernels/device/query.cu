#include "device/query.h"

namespace quantloom::kernels {

namespace {
__global__ void probe() {}
}  // namespace

cudaError_t query_kernel_image() {
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, probe);
  cudaGetLastError();  // a missing image is an answer here, not an error left behind
  return status;
}

}  // namespace quantloom::kernels
