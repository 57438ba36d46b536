// Thread block clusters: that all blocks have begun, and stores to the shared memory of another
// one.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace quantloom::kernels {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define QL_CLUSTERS 1
#endif

// For mbarriers that were fenced (mbarrier_init_fence) and nothing else: where arriving orders
// other stores, every thread waits for a fence of the whole GPU.
__device__ inline void cluster_arrive_relaxed() {
#if defined(QL_CLUSTERS)
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ inline void cluster_wait() {
#if defined(QL_CLUSTERS)
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// What `address` is in this block, in block `rank` of the cluster.
__device__ inline std::uint32_t address_in_block(std::uint32_t address, int rank) {
  std::uint32_t there = 0;
#if defined(QL_CLUSTERS)
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
#endif
  return there;
}

// Stores to another block, whose mbarrier counts the bytes: that orders them.
__device__ inline void send(std::uint32_t there, uint4 v, std::uint32_t barrier) {
#if defined(QL_CLUSTERS)
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(there),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier)
      : "memory");
#endif
}
__device__ inline void send(std::uint32_t there, float v, std::uint32_t barrier) {
#if defined(QL_CLUSTERS)
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(there),
      "r"(__float_as_uint(v)), "r"(barrier)
      : "memory");
#endif
}

}  // namespace quantloom::kernels
