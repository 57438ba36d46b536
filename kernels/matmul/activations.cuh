// x as the kernels for several tokens read it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace quantloom::kernels {

// Two neighbours of x.
__device__ inline float2 load_pair(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
__device__ inline float2 load_pair(const __half* from) {
  return __half22float2(*reinterpret_cast<const __half2*>(from));
}
__device__ inline float2 load_pair(const __nv_bfloat16* from) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
}

// The power of two that brings `largest` into [2^13, 2^14); 1 for 0, infinity and NaN.
__device__ inline float power_of_two_scale(float largest) {
  if (!(largest > 0.0f) || !(largest <= 3e38f)) return 1.0f;
  int exponent = 13 - (static_cast<int>((__float_as_uint(largest) >> 23) & 255u) - 127);
  exponent = max(-126, min(126, exponent));
  return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}

// Scales in steps of 2^8, for values of a token that are written before its largest one is known:
// most agree then. The largest of those at hand comes into [2^7, 2^15).
constexpr int coarse_least = -14, coarse_not_finite = 127;
// exponent: the bits of the largest value's, 0 to 255.
__device__ inline int coarse_step(unsigned exponent) {
  if (exponent == 255) return coarse_not_finite;
  return max(static_cast<int>((exponent + 1) >> 3) - 16, coarse_least);
}
// 2^exponent, of -126 to 127.
__device__ inline float power_of_two(int exponent) {
  return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}
__device__ inline int coarse_exponent(int step) {
  return step == coarse_not_finite ? 0 : 7 - 8 * step;
}
__device__ inline float coarse_scale(int step) { return power_of_two(coarse_exponent(step)); }

}  // namespace quantloom::kernels
