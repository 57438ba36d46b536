// Steps 1 to 3 of the sampler: bias, penalties, the highest logit; and the softmax of the raw
// logits where log-probabilities are wanted.
#pragma once

#include "sample/workspace.cuh"

namespace quantloom::kernels {

constexpr int adjust_threads = 256;

__device__ inline Key warp_max_key(Key key) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const Key other = __shfl_xor_sync(0xffffffffu, key, step);
    key = other > key ? other : key;
  }
  return key;
}

// Every thread gets the highest key of the block.
__device__ inline Key block_max_key(Key key) {
  __shared__ Key of_warp[32];
  __syncthreads();
  key = warp_max_key(key);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = key;
  __syncthreads();
  return warp_max_key(threadIdx.x % 32 < blockDim.x / 32 ? of_warp[threadIdx.x % 32] : 0);
}

// Sum in a fixed order; every thread gets it.
__device__ inline double block_sum_double(double value) {
  __shared__ double of_warp[32];
  __syncthreads();
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, step);
  }
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x % 32 < blockDim.x / 32 ? of_warp[threadIdx.x % 32] : 0.0;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, step);
  }
  return value;
}

__device__ inline int block_min_int(int value) {
  __shared__ int lowest;
  __syncthreads();
  if (threadIdx.x == 0) lowest = no_token;
  __syncthreads();
  value = __reduce_min_sync(0xffffffffu, value);
  if (threadIdx.x % 32 == 0) atomicMin(&lowest, value);
  __syncthreads();
  return lowest;
}

// The `count` highest of `size` keys in descending order; keys are unique but for 0.
template <class At>
__device__ void block_top(int size, int count, At at, Key* out) {
  Key below = ~Key{0};
  for (int i = 0; i < count; ++i) {
    Key best = 0;
    for (int j = threadIdx.x; j < size; j += blockDim.x) {
      const Key key = at(j);
      if (key < below && key > best) best = key;
    }
    best = block_max_key(best);
    if (threadIdx.x == 0) out[i] = best;
    below = best;
  }
}

// Bias and penalties of tokens begin .. begin + size - 1, which lie in `logits` (shared memory).
__device__ inline void adjust_slice(const ops::Sample& a, const ops::SamplerParameters& p,
                                    int position, int begin, int size, float* logits, int* counts) {
  for (int i = threadIdx.x; i < p.bias_count; i += blockDim.x) {
    const int at = p.bias_tokens[i] - begin;
    if (at >= 0 && at < size) logits[at] += p.bias_values[i];
  }
  const int window = p.penalty_window;
  const bool penalized = window > 0 && (p.repetition_penalty != 1.0f ||
                                        p.frequency_penalty != 0.0f || p.presence_penalty != 0.0f);
  __syncthreads();
  if (!penalized) return;
  for (int i = threadIdx.x; i < size; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  for (int i = max(0, position - window) + static_cast<int>(threadIdx.x); i < position;
       i += static_cast<int>(blockDim.x)) {
    const int at = a.history[i] - begin;
    if (at >= 0 && at < size) atomicAdd(&counts[at], 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    if (counts[i] == 0) continue;
    float logit = logits[i];
    logit = logit > 0.0f ? __fdiv_rn(logit, p.repetition_penalty)
                         : __fmul_rn(logit, p.repetition_penalty);
    logits[i] =
        __fsub_rn(logit, __fadd_rn(__fmul_rn(static_cast<float>(counts[i]), p.frequency_penalty),
                                   p.presence_penalty));
  }
  __syncthreads();
}

// The slices' parts together; the last block to arrive.
__device__ inline void merge_slices(const ops::Sample& a, float temperature, int position,
                                    SampleSpace& space) {
  for (int i = threadIdx.x; i < bins && !a.greedy; i += blockDim.x) {
    space.bin_counts[i] = 0;
    space.bin_masses[i] = 0;
  }
  const bool mine = threadIdx.x < adjust_blocks;
  const SlicePart& part = space.slices[mine ? threadIdx.x : 0];
  const int not_finite = block_min_int(mine ? part.not_finite : no_token);
  const Key best = block_max_key(mine ? part.best : 0);
  if (a.top_log_probabilities >= 0) {
    const Key raw_best = block_max_key(mine ? part.raw_best : 0);
    const double highest = static_cast<double>(key_logit(raw_best));
    const bool counts = mine && part.raw_best != 0;
    const double sum = block_sum_double(
        counts ? part.raw_sum * exp(static_cast<double>(key_logit(part.raw_best)) - highest) : 0.0);
    if (threadIdx.x == 0) {
      space.raw_highest = key_logit(raw_best);
      space.raw_log_sum = log(sum);
    }
    block_top(
        adjust_blocks * a.top_log_probabilities, a.top_log_probabilities,
        [&](int i) {
          return space.slices[i / a.top_log_probabilities].raw_top[i % a.top_log_probabilities];
        },
        space.raw_top);
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  const float highest = key_logit(best);
  ops::ChoiceStatus status = ops::ChoiceStatus::chosen;
  int token = best != 0 ? key_token(best) : 0;
  if (not_finite != no_token) {
    status = ops::ChoiceStatus::not_finite;
    token = not_finite;
  } else if (best == 0) {
    status = ops::ChoiceStatus::none_left;
  } else if (!isfinite(temperature > 0.0f ? __fdiv_rn(highest, temperature) : highest)) {
    status = ops::ChoiceStatus::not_finite;
  }
  space.arrived = 0;
  space.status = static_cast<int>(status);
  space.best = best;
  space.candidates = 0;
  space.near = 0;
  if (a.greedy || temperature == 0.0f || status != ops::ChoiceStatus::chosen) {
    // Later kernels of this call see that nothing is left to do.
    if (status == ops::ChoiceStatus::chosen) space.status = -1;
    finish(a, space, status, token, position);
  }
}

__global__ void __launch_bounds__(adjust_threads) adjust(ops::Sample a, SampleArrays arrays) {
  extern __shared__ float logits[];
  __shared__ bool last;
  SampleSpace& space = *arrays.space;
  const int vocabulary = static_cast<int>(a.vocabulary);
  const int slice = (vocabulary + adjust_blocks - 1) / adjust_blocks;
  const int begin = static_cast<int>(blockIdx.x) * slice;
  const int size = max(0, min(slice, vocabulary - begin));
  // What stands in global memory is asked for at once, so that it is one trip.
  const ops::SamplerParameters parameters = *a.parameters;
  const int position = static_cast<int>(*a.first + a.count);

  int not_finite = no_token;
  Key raw_best = 0;
  constexpr int at_once = 8;
  for (int first = threadIdx.x; first < size; first += at_once * adjust_threads) {
    float read[at_once];
#pragma unroll
    for (int k = 0; k < at_once; ++k) {
      const int i = first + k * adjust_threads;
      read[k] = i < size ? a.logits[begin + i] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < at_once; ++k) {
      const int i = first + k * adjust_threads;
      if (i >= size) break;
      logits[i] = read[k];
      if (!isfinite(read[k])) {
        not_finite = min(not_finite, begin + i);
      } else {
        raw_best = max(raw_best, make_key(read[k], begin + i));
      }
    }
  }
  not_finite = block_min_int(not_finite);
  SlicePart& part = space.slices[blockIdx.x];
  if (a.top_log_probabilities >= 0 && not_finite == no_token) {
    raw_best = block_max_key(raw_best);
    double sum = 0;
    for (int i = threadIdx.x; i < size; i += adjust_threads) {
      sum += exp(static_cast<double>(logits[i]) - static_cast<double>(key_logit(raw_best)));
    }
    sum = block_sum_double(sum);
    block_top(
        size, a.top_log_probabilities, [&](int i) { return make_key(logits[i], begin + i); },
        part.raw_top);
    if (threadIdx.x == 0) {
      part.raw_best = raw_best;
      part.raw_sum = sum;
    }
  }
  adjust_slice(a, parameters, position, begin, size, logits,
               reinterpret_cast<int*>(logits + slice));
  Key best = 0;
  for (int i = threadIdx.x; i < size; i += adjust_threads) {
    if (!a.greedy) arrays.adjusted[begin + i] = logits[i];
    if (logits[i] != -INFINITY) best = max(best, make_key(logits[i], begin + i));
  }
  best = block_max_key(best);
  if (threadIdx.x == 0) {
    part.not_finite = not_finite;
    part.best = best;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&space.arrived, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  merge_slices(a, parameters.temperature, position, space);
}

}  // namespace quantloom::kernels
