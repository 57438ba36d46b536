// F32, F16 and BF16 weights as they stand, up to 8 tokens at a time, in float32: a warp takes a few
// rows at a time, so that what it reads of x serves them all.
#pragma once

#include <cuda_fp16.h>

#include "formats/list.h"
#include "raw_matmul/raw_matmul.h"

namespace quantloom::kernels {

constexpr int float_few_tokens = 8;
constexpr int float_row_warps = 8;

// Sixteen bytes of weights.
template <class F>
struct FloatRun {
  static constexpr int count = 16 / F::bytes;
  __device__ static void widen(uint4 w, float out[count]) {
    const std::uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (F::format == formats::Format::f32) {
        out[i] = __uint_as_float(words[i]);
      } else if constexpr (F::format == formats::Format::f16) {
        const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
        out[2 * i] = pair.x, out[2 * i + 1] = pair.y;
      } else {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
      }
    }
  }
};

// Read once: not to drive anything else out of the caches.
__device__ inline uint4 load_once(const void* p) {
  return __ldcs(reinterpret_cast<const uint4*>(p));
}

// `tokens` is the most that a.tokens may be.
template <class F, int tokens, int rows>
__global__ void __launch_bounds__(32 * float_row_warps) float_rows_kernel(RawMatmul a) {
  constexpr int run = FloatRun<F>::count;
  constexpr int held = 2;  // runs of every row in flight
  const int lane = threadIdx.x % 32;
  const std::int64_t first = (std::int64_t{blockIdx.x} * float_row_warps + threadIdx.x / 32) * rows;
  if (first >= a.rows) return;
  const auto* weights = static_cast<const std::uint8_t*>(a.blocks);
  const std::int64_t row_bytes = a.columns * F::bytes;
  const std::uint8_t* from[rows];
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    const std::int64_t row = first + r < a.rows ? first + r : a.rows - 1;
    from[r] = weights + row * row_bytes;
  }
  float sum[rows][tokens] = {};
  const int columns = static_cast<int>(a.columns);
  for (int column = lane * run; column < columns; column += held * 32 * run) {
    uint4 w[held][rows];
#pragma unroll
    for (int h = 0; h < held; ++h) {
      const int at = column + h * 32 * run;
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        w[h][r] = at < columns ? load_once(from[r] + std::int64_t{at} * F::bytes)
                               : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int h = 0; h < held; ++h) {
      const int at = column + h * 32 * run;
      if (at >= columns) break;
      float values[rows][run];
#pragma unroll
      for (int r = 0; r < rows; ++r) FloatRun<F>::widen(w[h][r], values[r]);
#pragma unroll
      for (int t = 0; t < tokens; ++t) {
        if (t >= a.tokens) break;
        const auto* x = reinterpret_cast<const float4*>(a.x + t * a.columns + at);
#pragma unroll
        for (int i = 0; i < run / 4; ++i) {
          const float4 v = __ldg(x + i);
#pragma unroll
          for (int r = 0; r < rows; ++r) {
            float& s = sum[r][t];
            s = fmaf(values[r][4 * i], v.x, s), s = fmaf(values[r][4 * i + 1], v.y, s);
            s = fmaf(values[r][4 * i + 2], v.z, s), s = fmaf(values[r][4 * i + 3], v.w, s);
          }
        }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < tokens; ++t) {
    if (t >= a.tokens) break;
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float total = sum[r][t];
#pragma unroll
      for (int step = 16; step > 0; step /= 2) {
        total += __shfl_xor_sync(0xffffffffu, total, step);
      }
      if (lane == 0 && first + r < a.rows) {
        float& out = a.out[t * a.rows + first + r];
        if (a.bias != nullptr) total += a.bias[first + r];
        out = a.accumulate ? out + total : total;
      }
    }
  }
}

template <class F>
cudaError_t launch_float_rows(const RawMatmul& a, cudaStream_t stream) {
  const auto launch = [&]<int tokens, int rows>() {
    constexpr std::int64_t rows_of_block = rows * float_row_warps;
    const auto blocks = static_cast<unsigned>((a.rows + rows_of_block - 1) / rows_of_block);
    float_rows_kernel<F, tokens, rows><<<blocks, 32 * float_row_warps, 0, stream>>>(a);
  };
  if (a.tokens == 1) {
    launch.template operator()<1, 2>();
  } else if (a.tokens <= 4) {
    launch.template operator()<4, 4>();
  } else {
    launch.template operator()<8, 4>();
  }
  return cudaGetLastError();
}

}  // namespace quantloom::kernels
