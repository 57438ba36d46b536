// What a block keeps in shared memory beside the weights. All state that outlives a function is
// here: the functions need all registers.
#pragma once

#include "decode/attention_split.cuh"
#include "decode/exchange.cuh"
#include "decode/fetch.cuh"
#include "decode/grid.cuh"
#include "decode/step.cuh"

namespace quantloom::kernels {

// The warps that multiply hand the sums of a batch of strips to those that store, which are done
// with them before the buffer's next batch. Batches are counted through the launch.
struct SumState {
  std::uint64_t squared[sum_buffers];  // x is, by all multiplying warps: its norm is known early
  std::uint64_t summed[sum_buffers];   // by all multiplying warps
  std::uint64_t stored[sum_buffers];   // by all storing warps
};

struct Block {
  RingState rings;
  SumState sums;
  std::uint32_t tag;                 // of the launch
  int table;                         // decode_index() of the format whose table is there, or -1
  volatile int turns[decode_warps];  // each warp's step
  StepCopy steps[2];                 // this one and the next
  StepCopy fetch_steps[2];           // of the filling warp, which is ahead
  StepCopy store_steps[2];           // of the storing warps, which are behind
  // x's sums of squares before a norm, of a step whose first batch is in this buffer.
  alignas(16) float squares[sum_buffers][decode_warps];
  DecodeProgram program;
  int position;
  std::uint64_t* stamps;  // of the step at hand, or null
  AttentionSplit split;
  AttentionItem item;
  float2 angles[most_head_size / 2];  // of RoPE at the position: cosine, sine

  __device__ __forceinline__ const StepCopy& step(unsigned turn) const { return steps[turn % 2]; }

  __device__ __forceinline__ void stamp(int which) {
    if (threadIdx.x == 0) {
      if (stamps != nullptr) stamps[which] = nanoseconds();
    }
  }
};

// The storing warps have stored the batches before `batch`, and no longer read their sums. A place
// that no batch has had yet counts as stored once, by arrivals: compute-sanitizer's synccheck
// (2025.3) does not come back from 16 warps' wait for the phase before a barrier's first.
__device__ __forceinline__ void wait_for_stores(Block& block, std::uint32_t batch) {
  const std::uint32_t next = batch - 1 + sum_buffers;  // the batch for that place
  mbarrier_wait(shared_address(&block.sums.stored[next % sum_buffers]), next / sum_buffers & 1);
}

// Places in the dynamic shared memory at `base`, which is behind the table.
struct SharedX {
  std::int8_t* values;
  float* scales;
  float* sums;
  __device__ SharedX(const DecodeLayout& layout, std::uint8_t* base)
      : values(reinterpret_cast<std::int8_t*>(base)),
        scales(reinterpret_cast<float*>(base + layout.x_scales)),
        sums(reinterpret_cast<float*>(base + layout.x_sums)) {}
};

constexpr int sums_of_batch = decode_batch_strips * decode_warps * strip_rows;
__device__ inline float* partial_sums(const DecodeLayout& layout, std::uint8_t* base,
                                      std::uint32_t batch) {
  return reinterpret_cast<float*>(base + layout.partial) + batch % sum_buffers * sums_of_batch;
}

}  // namespace quantloom::kernels
