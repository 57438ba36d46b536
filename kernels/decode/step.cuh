// The descriptions of steps in shared memory. The next one is read while one runs, so that no step
// begins with a wait for global memory, and past the registers, which would hold it in local memory
// while a step runs.
#pragma once

#include "decode/decode.h"
#include "decode/sizes.h"
#include "matmul/ring.cuh"

namespace quantloom::kernels {

struct alignas(16) StepCopy {
  std::uint64_t words[sizeof(DecodeStep) / 8];
  alignas(8) DecodeShare share;  // of this block
  __device__ const DecodeStep& get() const { return reinterpret_cast<const DecodeStep&>(words); }
};
static_assert(alignof(DecodeStep) == 8);

// Begins to copy from global to shared memory, past the registers.
template <int bytes>
__device__ inline void copy_async(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to)), "l"(from),
               "n"(bytes)
               : "memory");
}
// What this thread copied stands; the others see it behind the next barrier.
__device__ inline void end_copy() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// One warp begins to copy a step's description, where there is such a step.
__device__ inline void begin_copy(const DecodeProgram& program, int step, StepCopy& copy) {
  if (step >= program.step_count) return;
  const int lane = threadIdx.x % 32;
  const auto* from = reinterpret_cast<const std::uint64_t*>(program.steps + step);
  for (int i = lane; i < static_cast<int>(sizeof(DecodeStep) / 8); i += 32) {
    copy_async<8>(copy.words + i, from + i);
  }
  if (lane == 0) {
    copy_async<8>(&copy.share, program.shares + step * static_cast<int>(gridDim.x) + blockIdx.x);
  }
}

}  // namespace quantloom::kernels
