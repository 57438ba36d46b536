#include "device/read_words.h"

namespace quantloom::kernels {

namespace {

constexpr int threads = 512;
constexpr int loads = 8;  // in flight per thread

__global__ void __launch_bounds__(threads)
    xor_words(const uint4* from, std::size_t count, std::uint32_t* sum) {
  const std::size_t step = static_cast<std::size_t>(gridDim.x) * threads;
  std::size_t i = static_cast<std::size_t>(blockIdx.x) * threads + threadIdx.x;
  std::uint32_t own = 0;
  for (; i + (loads - 1) * step < count; i += loads * step) {
    uint4 words[loads];
    for (int j = 0; j < loads; ++j) words[j] = __ldcs(from + i + j * step);
    for (int j = 0; j < loads; ++j) own ^= words[j].x ^ words[j].y ^ words[j].z ^ words[j].w;
  }
  for (; i < count; i += step) {
    const uint4 word = __ldcs(from + i);
    own ^= word.x ^ word.y ^ word.z ^ word.w;
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) own ^= __shfl_xor_sync(0xffffffffu, own, lanes);
  if (threadIdx.x % 32 == 0) atomicXor(sum, own);
}

}  // namespace

cudaError_t read_words(const void* from, std::size_t bytes, std::uint32_t* sum,
                       cudaStream_t stream) {
  if (bytes % sizeof(uint4) != 0 || reinterpret_cast<std::uintptr_t>(from) % sizeof(uint4) != 0) {
    return cudaErrorInvalidValue;
  }
  int device = 0, processors = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status != cudaSuccess) return status;
  status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (status != cudaSuccess) return status;
  xor_words<<<4 * processors, threads, 0, stream>>>(static_cast<const uint4*>(from),
                                                    bytes / sizeof(uint4), sum);
  return cudaGetLastError();
}

}  // namespace quantloom::kernels
