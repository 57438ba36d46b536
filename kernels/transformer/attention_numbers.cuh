// Weights of attention: powers of two for exponentials, and halves from what they give.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace quantloom::kernels {

constexpr float log2_e = 1.44269504088896341f;

// 2^x, zero where that is no normal number: exp2f would scale such results up and down again.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline std::uint32_t pack_halves(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

}  // namespace quantloom::kernels
