// One warp per head of one token: the head is normed and rotated in shared memory, then written
// out.
#include <cuda_fp16.h>

#include "transformer/overlap.cuh"
#include "transformer/reduce.cuh"
#include "transformer/transformer.h"

namespace quantloom::kernels {
namespace {

constexpr int warps = 4;
constexpr int largest_head = 512;

// 32 values to int8 with their half scale. A value that is not finite makes the scale NaN, never a
// number.
__device__ void store_q8_0(float value, int lane, std::int8_t* quants, __half* scale) {
  const float magnitude = warp_max(fabsf(value));
  const bool finite = __all_sync(0xffffffffu, isfinite(value));
  const float step = magnitude / 127.0f;
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  quants[lane] = static_cast<std::int8_t>(finite ? __float2int_rn(value * inverse) : 1);
  if (lane == 0) *scale = __float2half_rn(finite ? step : nanf(""));
}

__device__ void store_head(const float* head, int lane, const Cache& cache, void* plane,
                           void* scales, int kv_head, std::int64_t position) {
  const std::int64_t row = kv_head * cache.capacity + position;
  const int size = cache.head_size;
  if (cache.type == CacheType::f16) {
    __half* out = static_cast<__half*>(plane) + row * size;
    for (int i = lane; i < size; i += 32) out[i] = __float2half_rn(head[i]);
  } else if (cache.type == CacheType::f32) {
    float* out = static_cast<float*>(plane) + row * size;
    for (int i = lane; i < size; i += 32) out[i] = head[i];
  } else {
    std::int8_t* out = static_cast<std::int8_t*>(plane) + row * size;
    __half* scale = static_cast<__half*>(scales) + row * (size / 32);
    for (int group = 0; group < size / 32; ++group) {
      store_q8_0(head[32 * group + lane], lane, out + 32 * group, scale + group);
    }
  }
}

__device__ void norm_head(float* head, int size, int lane, const float* weight, float epsilon) {
  float sum = 0;
  for (int i = lane; i < size; i += 32) sum += head[i] * head[i];
  const float scale = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(size) + epsilon);
  for (int i = lane; i < size; i += 32) head[i] = head[i] * scale * weight[i];
  __syncwarp();
}

__device__ void rotate_head(float* head, int lane, const RopeStore& a, std::int64_t position) {
  const int half = a.dimensions / 2;
  const float2* angles = reinterpret_cast<const float2*>(a.table) + position * half;
  for (int pair = lane; pair < half; pair += 32) {
    const int i = a.interleaved ? 2 * pair : pair;
    const int j = a.interleaved ? 2 * pair + 1 : pair + half;
    const float2 angle = angles[pair];
    const float x = head[i];
    const float y = head[j];
    head[i] = x * angle.x - y * angle.y;
    head[j] = x * angle.y + y * angle.x;
  }
  __syncwarp();
}

__global__ void __launch_bounds__(32 * warps) rope_store_kernel(RopeStore a) {
  extern __shared__ float shared[];
  const int lane = threadIdx.x % 32;
  const int size = a.cache.head_size;
  const int slot = blockIdx.x * warps + threadIdx.x / 32;  // q heads, then k heads, then v heads
  const int kv_heads = a.cache.kv_heads;
  wait_for_previous();
  if (slot >= a.heads + 2 * kv_heads) return;
  const std::int64_t token = blockIdx.y;
  const std::int64_t position = *a.first + token;
  float* head = shared + (threadIdx.x / 32) * size;

  const bool is_q = slot < a.heads;
  const bool is_k = !is_q && slot < a.heads + kv_heads;
  const int kv_head = is_k ? slot - a.heads : slot - a.heads - kv_heads;
  const float* source = is_q   ? a.q + (token * a.heads + slot) * size
                        : is_k ? a.k + (token * kv_heads + kv_head) * size
                               : a.v + (token * kv_heads + kv_head) * size;
  for (int i = lane; i < size; i += 32) head[i] = source[i];
  __syncwarp();
  if (is_q || is_k) {
    const float* weight = is_q ? a.q_norm : a.k_norm;
    if (weight != nullptr) norm_head(head, size, lane, weight, is_q ? a.q_epsilon : a.k_epsilon);
    rotate_head(head, lane, a, position);
    float* target =
        is_q ? a.q + (token * a.heads + slot) * size : a.k + (token * kv_heads + kv_head) * size;
    for (int i = lane; i < size; i += 32) target[i] = head[i];
    if (is_k) {
      store_head(head, lane, a.cache, a.cache.keys, a.cache.key_scales, kv_head, position);
    }
  } else {
    store_head(head, lane, a.cache, a.cache.values, a.cache.value_scales, kv_head, position);
  }
}

}  // namespace

cudaError_t rope_store(const RopeStore& arguments, cudaStream_t stream) {
  if (arguments.tokens == 0) return cudaSuccess;
  const int size = arguments.cache.head_size;
  if (size > largest_head || (arguments.cache.type == CacheType::q8_0 && size % 32 != 0) ||
      arguments.tokens > 65535) {
    return cudaErrorInvalidValue;
  }
  const int slots = arguments.heads + 2 * arguments.cache.kv_heads;
  const dim3 grid((slots + warps - 1) / warps, arguments.tokens);
  return launch_overlapped(rope_store_kernel, grid, 32 * warps, warps * size * sizeof(float),
                           stream, arguments);
}

}  // namespace quantloom::kernels
