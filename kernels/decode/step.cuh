// The descriptions of steps in shared memory. The next one is read while one runs, so that no step
// begins with a wait for global memory.
#pragma once

#include "decode/decode.h"
#include "decode/sizes.h"

namespace quantloom::kernels {

constexpr int step_words = sizeof(DecodeStep) / 4;
static_assert(sizeof(DecodeStep) % 4 == 0 && step_words < 32 * 5 && step_words < decode_threads);

struct alignas(16) StepCopy {
  std::uint32_t words[step_words];
  DecodeShare share;  // of this block, where the step is a product
  __device__ const DecodeStep& get() const { return reinterpret_cast<const DecodeStep&>(words); }
};
static_assert(alignof(DecodeStep) <= 16);

__device__ inline const std::uint32_t* step_source(const DecodeProgram& program, int step) {
  return reinterpret_cast<const std::uint32_t*>(program.steps + step);
}
__device__ inline const DecodeShare& share_source(const DecodeProgram& program, int step) {
  return program.shares[step * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)];
}

// A step's description on its way through the registers of one warp.
class StepWords {
 public:
  __device__ StepWords(const DecodeProgram& program, int step) {
    if (step >= program.step_count) return;
#pragma unroll
    for (int i = 0; i < 5; ++i) {
      const int at = i * 32 + static_cast<int>(threadIdx.x % 32);
      if (at < step_words) words_[i] = step_source(program, step)[at];
    }
    share_ = share_source(program, step);
  }
  __device__ void store(StepCopy& copy) const {
#pragma unroll
    for (int i = 0; i < 5; ++i) {
      const int at = i * 32 + static_cast<int>(threadIdx.x % 32);
      if (at < step_words) copy.words[at] = words_[i];
    }
    if (threadIdx.x % 32 == 0) copy.share = share_;
  }

 private:
  std::uint32_t words_[5] = {};
  DecodeShare share_ = {};
};

}  // namespace quantloom::kernels
