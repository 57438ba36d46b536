// One warp computes one row for up to 8 tokens; a lane takes every 32nd run of 8 weights.
#pragma once

#include "formats/decode.h"
#include "raw_matmul/raw_matmul.h"

namespace quantloom::kernels {

constexpr int raw_warps = 4;

// Weights 8k .. 8k + 7 of a row; past `columns` (float formats only) they are 0.
template <class F>
__device__ inline void decode_run(const typename F::Block* row, std::int64_t k,
                                  std::int64_t columns, float out[8]) {
  if constexpr (F::quantized) {
    constexpr int runs = F::elements / 8;
    formats::decode8<F>(row[k / runs], static_cast<int>(k % runs), out);
  } else {
    for (int i = 0; i < 8; ++i) {
      out[i] = 8 * k + i < columns ? F::decode(row[8 * k + i]) : 0.0f;
    }
  }
}

template <class F, int tokens>
__global__ void __launch_bounds__(32 * raw_warps) raw_matmul_kernel(RawMatmul a) {
  const std::int64_t row = std::int64_t{blockIdx.x} * raw_warps + threadIdx.x / 32;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % 32;
  const std::int64_t first = std::int64_t{blockIdx.y} * tokens;
  const std::int64_t count = a.tokens - first < tokens ? a.tokens - first : tokens;
  const auto* blocks =
      static_cast<const typename F::Block*>(a.blocks) + row * (a.columns / F::elements);
  float sum[tokens] = {};
  const std::int64_t runs = (a.columns + 7) / 8;
  for (std::int64_t k = lane; k < runs; k += 32) {
    float w[8];
    decode_run<F>(blocks, k, a.columns, w);
#pragma unroll
    for (int t = 0; t < tokens; ++t) {
      if (t >= count) break;
      const float* x = a.x + (first + t) * a.columns + 8 * k;
      const float4 low = *reinterpret_cast<const float4*>(x);
      const float4 high =
          8 * k + 4 < a.columns ? *reinterpret_cast<const float4*>(x + 4) : float4{0, 0, 0, 0};
      sum[t] += w[0] * low.x + w[1] * low.y + w[2] * low.z + w[3] * low.w + w[4] * high.x +
                w[5] * high.y + w[6] * high.z + w[7] * high.w;
    }
  }
#pragma unroll
  for (int t = 0; t < tokens; ++t) {
    float total = sum[t];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, step);
    }
    if (lane == 0 && t < count) {
      float& out = a.out[(first + t) * a.rows + row];
      if (a.bias != nullptr) total += a.bias[row];
      out = a.accumulate ? out + total : total;
    }
  }
}

template <class F>
cudaError_t launch_raw_blocks(const RawMatmul& a, cudaStream_t stream) {
  if (a.columns % F::elements != 0 || a.columns % 4 != 0) return cudaErrorInvalidValue;
  if (a.rows == 0 || a.tokens == 0) return cudaSuccess;
  constexpr int many = 8;
  const unsigned row_blocks = static_cast<unsigned>((a.rows + raw_warps - 1) / raw_warps);
  if (a.tokens == 1) {
    raw_matmul_kernel<F, 1><<<row_blocks, 32 * raw_warps, 0, stream>>>(a);
  } else {
    const dim3 grid(row_blocks, static_cast<unsigned>((a.tokens + many - 1) / many));
    raw_matmul_kernel<F, many><<<grid, 32 * raw_warps, 0, stream>>>(a);
  }
  return cudaGetLastError();
}

template <class F>
cudaError_t launch_raw_matmul(const RawMatmul& a, cudaStream_t stream);

#define QL_RAW_MATMUL_INSTANCE(F)                                                      \
  template <>                                                                          \
  cudaError_t launch_raw_matmul<formats::F>(const RawMatmul& a, cudaStream_t stream) { \
    return launch_raw_blocks<formats::F>(a, stream);                                   \
  }

}  // namespace quantloom::kernels
