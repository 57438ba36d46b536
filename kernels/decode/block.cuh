// What a block keeps in shared memory beside the weights. All state that outlives a function is
// here: the functions need all registers.
#pragma once

#include "decode/attention_split.cuh"
#include "decode/exchange.cuh"
#include "decode/fetch.cuh"
#include "decode/grid.cuh"
#include "decode/step.cuh"

namespace quantloom::kernels {

struct Block {
  RingState rings;
  std::uint32_t stages;                     // of the ring that the products before had
  std::uint32_t tag;                        // of the launch
  volatile int turns[decode_warps];         // each warp's step
  StepCopy steps[2];                        // this one and the next
  StepCopy fetch_steps[2];                  // of the filling warp, which is ahead
  alignas(16) float squares[decode_warps];  // x's sums of squares before a norm
  DecodeProgram program;
  int position;
  std::uint64_t* stamps;  // of the step at hand, or null
  AttentionSplit split;
  AttentionItem item;
  float2 angles[most_head_size / 2];  // of RoPE at the position: cosine, sine

  __device__ int turn() const { return turns[threadIdx.x / 32]; }
  __device__ const StepCopy& step() const { return steps[turn() % 2]; }

  __device__ __forceinline__ void stamp(int which) {
    if (threadIdx.x == 0) {
      if (stamps != nullptr) stamps[which] = nanoseconds();
    }
  }
};

// Places in the dynamic shared memory at `base`.
struct SharedX {
  std::int8_t* values;
  float* scales;
  float* sums;
  __device__ SharedX(const DecodeLayout& layout, std::uint8_t* base)
      : values(reinterpret_cast<std::int8_t*>(base)),
        scales(reinterpret_cast<float*>(base + layout.x_scales)),
        sums(reinterpret_cast<float*>(base + layout.x_sums)) {}
};

__device__ inline float* partial_sums(const DecodeLayout& layout, std::uint8_t* base) {
  return reinterpret_cast<float*>(base + layout.partial);
}

}  // namespace quantloom::kernels
