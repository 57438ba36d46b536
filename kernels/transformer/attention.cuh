// The kernels that attention() chooses from.
#pragma once

#include "transformer/transformer.h"

namespace quantloom::kernels {

constexpr int partial_slots = 264;   // two blocks for each of 132 multiprocessors
constexpr int rows_per_partial = 8;  // query rows that share one reading of the cache
constexpr int decode_tokens = 8;     // calls of at most so many tokens split the cache over blocks
constexpr int long_cache = 4096;     // positions from which several readings of it cost most
constexpr int counter_slots = 4096;  // (kv head, row group) pairs of one call

// Where the parts of a split cache meet: counters, which must be zero before the first call and are
// left zero, then [partial_slots][rows_per_partial] of (peak, mass), then
// [partial_slots][rows_per_partial][head_size] of sums.
struct PartialSpace {
  int* counters;
  float2* peaks;
  float* sums;
};

__host__ __device__ inline PartialSpace partial_space(void* workspace) {
  int* counters = static_cast<int*>(workspace);
  float2* peaks = reinterpret_cast<float2*>(counters + counter_slots);
  return {counters, peaks, reinterpret_cast<float*>(peaks + partial_slots * rows_per_partial)};
}

// Behind the counters, in the place of PartialSpace: (peak, mass) of split_rows partial rows, then
// their sums.
constexpr int split_rows = 32768;
inline float2* split_space(void* workspace) {
  return reinterpret_cast<float2*>(static_cast<int*>(workspace) + counter_slots);
}

// f16 and q8_0 caches with head sizes 32, 64, 96 and 128.
cudaError_t attention_decode(const Attention& arguments, cudaStream_t stream);
cudaError_t attention_prefill(const Attention& arguments, cudaStream_t stream);
// f16 and q8_0 caches with head sizes 64, 96, 128 and 256 on compute capability 9.0.
cudaError_t attention_prefill_sm90(const Attention& arguments, cudaStream_t stream);
// Any cache type and head size.
cudaError_t attention_any(const Attention& arguments, cudaStream_t stream);

}  // namespace quantloom::kernels
