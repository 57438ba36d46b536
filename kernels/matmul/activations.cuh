// x in 16-bit floating point, each token scaled by a power of two so that its largest value lies in
// [2^13, 2^14).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace quantloom::kernels {

// The power of two that brings `largest` into [2^13, 2^14); 1 for 0, infinity and NaN.
__device__ inline float power_of_two_scale(float largest) {
  if (!(largest > 0.0f) || !(largest <= 3e38f)) return 1.0f;
  int exponent = 13 - (static_cast<int>((__float_as_uint(largest) >> 23) & 255u) - 127);
  exponent = max(-126, min(126, exponent));
  return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}

constexpr int half_threads = 512;

// One block per token. values: [columns / 32, rounded up to whole pieces][padded tokens][32]
// halves; tokens from `tokens` on are zero. scales[token]: what a product must be multiplied by.
void prepare_halves(const float* x, std::int64_t columns, int tokens, int padded_tokens,
                    void* values, float* scales, bool overlap, cudaStream_t stream);

}  // namespace quantloom::kernels
