// The warps of a block that multiply, those that store, and the launch as a whole.
#pragma once

#include <cstdint>

#include "decode/sizes.h"

namespace quantloom::kernels {

__device__ inline void sync_consumers() {
  asm volatile("bar.sync 1, %0;" ::"n"(decode_threads) : "memory");
}

__device__ inline void sync_storers() {
  asm volatile("bar.sync 2, %0;" ::"n"(decode_storing_threads) : "memory");
}

__device__ inline std::uint64_t nanoseconds() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// launches[0] counts the launches that ended, launches[1] the blocks that left the one under way.
// One thread of each block calls each of these.
__device__ inline std::uint32_t tag_of_launch(const int* launches) {
  return (*const_cast<const volatile int*>(launches) + 1) & 1;
}
__device__ inline void leave_launch(int* launches) {
  if (atomicAdd(launches + 1, 1) == static_cast<int>(gridDim.x) - 1) {
    launches[1] = 0;
    ++launches[0];
  }
}

}  // namespace quantloom::kernels
