// Barriers over the grid and over a block's consumer warps.
#pragma once

#include <cstdint>

#include "decode/sizes.h"

namespace quantloom::kernels {

__device__ inline void sync_consumers() {
  asm volatile("bar.sync 1, %0;" ::"n"(decode_threads) : "memory");
}

__device__ inline std::uint64_t nanoseconds() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// In shared memory, where thread 0 alone looks: what it kept in local memory would come back
// through the L2 in each turn of its wait.
struct GridBarrierState {
  int* counters;  // arrivals, blocks that left
  int target;     // arrivals of all blocks in the steps before
};

// Every block arrives once a step; the launch is cooperative, so all blocks are resident. The
// count only grows during a launch; the last block to leave sets it back to zero, when no other
// looks at it any more.
struct GridBarrier {
  GridBarrierState& state;

  // After what the block's consumers have written.
  __device__ void arrive() const {
    sync_consumers();
    if (threadIdx.x == 0) {
      asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(state.counters) : "memory");
      state.target += static_cast<int>(gridDim.x);
    }
  }

  // Before what other blocks have written is read.
  __device__ void wait() const {
    poll();
    sync_consumers();
  }
  // The wait without the meeting of the block's warps that has to follow it. A wait of seconds is a
  // fault, and ends the kernel with an error rather than never.
  __device__ void poll() const {
    if (threadIdx.x == 0) {
      const int target = state.target;
      const int* counters = state.counters;
      if (count(counters) < target) {
        const std::uint64_t start = nanoseconds();
        while (count(counters) < target) {
          if (nanoseconds() - start > longest_wait) __trap();
        }
      }
    }
  }

  __device__ void leave() const {
    if (threadIdx.x != 0) return;
    int* counters = state.counters;
    if (atomicAdd(counters + 1, 1) == static_cast<int>(gridDim.x) - 1) {
      counters[0] = 0, counters[1] = 0;
    }
  }

 private:
  static constexpr std::uint64_t longest_wait = 10'000'000'000;

  static __device__ int count(const int* counters) {
    int now;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(counters) : "memory");
    return now;
  }
};

}  // namespace quantloom::kernels
