// Any cache type and head size in float32: one warp per query row, one position at a time.
#include <cuda_fp16.h>

#include "transformer/attention.cuh"
#include "transformer/reduce.cuh"

namespace quantloom::kernels {
namespace {

constexpr int warps = 4;
constexpr int most_per_lane = largest_head / 32;

__device__ float element(const Cache& cache, const void* plane, const void* scales,
                         std::int64_t row, int i) {
  const std::int64_t at = row * cache.head_size + i;
  switch (cache.type) {
    case CacheType::f16:
      return __half2float(static_cast<const __half*>(plane)[at]);
    case CacheType::f32:
      return static_cast<const float*>(plane)[at];
    case CacheType::q8_0:
      return static_cast<float>(static_cast<const std::int8_t*>(plane)[at]) *
             __half2float(
                 static_cast<const __half*>(scales)[row * (cache.head_size / 32) + i / 32]);
  }
  return nanf("");
}

// Each warp of the block takes every fourth position; their results meet in shared memory.
__global__ void __launch_bounds__(32 * warps) any(Attention a) {
  extern __shared__ float shared[];  // [warps][head_size] sums, then [warps] peaks, [warps] masses
  const int size = a.cache.head_size;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const std::int64_t token = blockIdx.x;
  const int head = blockIdx.y;
  const int kv_head = head / (a.heads / a.cache.kv_heads);
  const std::int64_t position = *a.first + token;
  const std::int64_t oldest =
      a.window > 0 ? max(std::int64_t{0}, position - a.window + 1) : std::int64_t{0};
  const std::int64_t base = kv_head * a.cache.capacity;
  const float* source = a.q + (token * a.heads + head) * size;

  float q[most_per_lane];
  float sum[most_per_lane];
#pragma unroll
  for (int i = 0; i < most_per_lane; ++i) {
    const int at = 32 * i + lane;
    q[i] = at < size ? source[at] * a.scale : 0.0f;
    sum[i] = 0;
  }
  float peak = -INFINITY;
  float mass = 0;
  for (std::int64_t p = oldest + warp; p <= position; p += warps) {
    float score = 0;
#pragma unroll
    for (int i = 0; i < most_per_lane; ++i) {
      const int at = 32 * i + lane;
      if (at < size)
        score += q[i] * element(a.cache, a.cache.keys, a.cache.key_scales, base + p, at);
    }
    score = warp_sum(score);
    if (a.soft_cap > 0) score = a.soft_cap * tanhf(score / a.soft_cap);
    const float top = fmaxf(peak, score);
    const float shrink = expf(peak - top);
    const float weight = expf(score - top);
    mass = mass * shrink + weight;
    peak = top;
#pragma unroll
    for (int i = 0; i < most_per_lane; ++i) {
      const int at = 32 * i + lane;
      if (at < size) {
        sum[i] = sum[i] * shrink +
                 weight * element(a.cache, a.cache.values, a.cache.value_scales, base + p, at);
      }
    }
  }
  float* peaks = shared + warps * size;
  float* masses = peaks + warps;
#pragma unroll
  for (int i = 0; i < most_per_lane; ++i) {
    const int at = 32 * i + lane;
    if (at < size) shared[warp * size + at] = sum[i];
  }
  if (lane == 0) {
    peaks[warp] = peak;
    masses[warp] = mass;
  }
  __syncthreads();
  float top = peaks[0];
  for (int w = 1; w < warps; ++w) top = fmaxf(top, peaks[w]);
  for (int at = threadIdx.x; at < size; at += 32 * warps) {
    float value = 0;
    float total = 0;
    for (int w = 0; w < warps; ++w) {
      // A warp without positions has mass 0 and peak -inf. A NaN score leaves its mass NaN.
      const float shrink = expf(peaks[w] - top);
      value += shrink * shared[w * size + at];
      total += shrink * masses[w];
    }
    a.out[(token * a.heads + head) * size + at] = value / total;
  }
}

}  // namespace

cudaError_t attention_any(const Attention& arguments, cudaStream_t stream) {
  const int size = arguments.cache.head_size;
  if (size > largest_head) return cudaErrorInvalidValue;
  const dim3 grid(arguments.tokens, arguments.heads);
  const std::size_t shared = (warps * size + 2 * warps) * sizeof(float);
  any<<<grid, 32 * warps, shared, stream>>>(arguments);
  return cudaGetLastError();
}

}  // namespace quantloom::kernels
