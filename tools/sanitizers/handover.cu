// What racecheck follows of a warp that hands shared memory on to another by an mbarrier:
//   nvcc -arch=sm_90 -std=c++20 tools/sanitizers/handover.cu -o handover
//   for way in 0 1 2; do compute-sanitizer --tool racecheck ./handover $way; done
// 0: every lane writes, __syncwarp(), lane 0 arrives: ordered (the barrier of the warp, then the
//    release by one of its threads), as the kernels for few tokens and for decoding do it.
// 1: every lane arrives for itself: ordered as well, at 32 arrivals for one.
// 2: nobody waits: a race.
// A tool that reports 0 as it does 2, and 1 not, does not follow the first of these orders, and
// what it says of the kernels is to be read so.
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

__global__ void hand_over(int way, float* out) {
  __shared__ float values[32];
  __shared__ std::uint64_t barrier;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(&barrier));
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(way == 1 ? 32 : 1) : "memory");
  }
  __syncthreads();
  if (warp == 0) {
    values[lane] = static_cast<float>(lane);
    __syncwarp();
    if (way == 1 || lane == 0) {
      asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(at)
                   : "memory");
    }
  } else {
    for (int done = way == 2; !done;) {
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], 0; selp.s32 %0, 1, 0, p; }"
          : "=r"(done)
          : "r"(at)
          : "memory");
    }
    out[lane] = values[31 - lane];
  }
}

int main(int argc, char** argv) {
  float* out = nullptr;
  if (cudaMalloc(&out, 32 * sizeof(float)) != cudaSuccess) return 1;
  hand_over<<<1, 64>>>(argc > 1 ? std::atoi(argv[1]) : 0, out);
  const cudaError_t status = cudaDeviceSynchronize();
  std::printf("%s\n", cudaGetErrorString(status));
  return status != cudaSuccess;
}
