// One head of q, k or v in the hands of one warp: norm, rotation, write to the cache.
#pragma once

#include <cuda_fp16.h>

#include "transformer/reduce.cuh"
#include "transformer/transformer.h"

namespace quantloom::kernels {

// 32 values to int8 with their half scale. A value that is not finite makes the scale NaN, never a
// number.
__device__ inline void store_q8_0(float value, int lane, std::int8_t* quants, __half* scale) {
  const float magnitude = warp_max(fabsf(value));
  const bool finite = __all_sync(0xffffffffu, isfinite(value));
  const float step = magnitude / 127.0f;
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  quants[lane] = static_cast<std::int8_t>(finite ? __float2int_rn(value * inverse) : 1);
  if (lane == 0) *scale = __float2half_rn(finite ? step : nanf(""));
}

__device__ inline void store_head(const float* head, int lane, const Cache& cache, void* plane,
                                  void* scales, int kv_head, std::int64_t position) {
  const std::int64_t row = kv_head * cache.capacity + position;
  const int size = cache.head_size;
  if (cache.type == CacheType::f16) {
    __half* out = static_cast<__half*>(plane) + row * size;
#pragma unroll 1
    for (int i = lane; i < size; i += 32) out[i] = __float2half_rn(head[i]);
  } else if (cache.type == CacheType::f32) {
    float* out = static_cast<float*>(plane) + row * size;
#pragma unroll 1
    for (int i = lane; i < size; i += 32) out[i] = head[i];
  } else {
    std::int8_t* out = static_cast<std::int8_t*>(plane) + row * size;
    __half* scale = static_cast<__half*>(scales) + row * (size / 32);
#pragma unroll 1
    for (int group = 0; group < size / 32; ++group) {
      store_q8_0(head[32 * group + lane], lane, out + 32 * group, scale + group);
    }
  }
}

__device__ inline void norm_head(float* head, int size, int lane, const float* weight,
                                 float epsilon) {
  float sum = 0;
  for (int i = lane; i < size; i += 32) sum += head[i] * head[i];
  const float scale = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(size) + epsilon);
  for (int i = lane; i < size; i += 32) head[i] = head[i] * scale * weight[i];
  __syncwarp();
}

// `angles` [dimensions / 2]: cosine and sine at the head's position.
__device__ inline void rotate_head(float* head, int lane, const RopeStore& a,
                                   const float2* angles) {
  const int half = a.dimensions / 2;
#pragma unroll 1
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

}  // namespace quantloom::kernels
