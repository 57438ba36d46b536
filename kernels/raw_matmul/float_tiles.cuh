// F32, F16 and BF16 weights as they stand, many tokens: tiles on the tensor cores. Weights and x
// are each the sum of two bfloat16, 16 bits or more, and what the two lower parts would give is
// left out (2^-18 of a product); the upper part alone is all of a BF16 weight.
#pragma once

#include <cuda_bf16.h>

#include "raw_matmul/float_rows.cuh"
#include "raw_matmul/raw_matmul_kernel.cuh"

namespace quantloom::kernels {

constexpr int float_tile_threads = 256;
constexpr int float_step = 32;  // columns between two barriers

// Eight values as two parts of eight bfloat16.
struct SplitEight {
  uint4 high, low;
};

__device__ inline SplitEight split_eight(const float v[8]) {
  std::uint32_t high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 h = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
    const float2 back = __bfloat1622float2(h);
    // Of an infinity or NaN the difference would be NaN; the upper part says it all.
    const auto rest = [](float value, float part) {
      return fabsf(part) <= 3.4e38f ? value - part : 0.0f;
    };
    const __nv_bfloat162 l =
        __floats2bfloat162_rn(rest(v[2 * i], back.x), rest(v[2 * i + 1], back.y));
    high[i] = *reinterpret_cast<const std::uint32_t*>(&h);
    low[i] = *reinterpret_cast<const std::uint32_t*>(&l);
  }
  return {make_uint4(high[0], high[1], high[2], high[3]),
          make_uint4(low[0], low[1], low[2], low[3])};
}

// Rows of 32 bfloat16: 64 bytes, whose 16-byte chunks change places so that eight rows of one chunk
// fall into different banks.
__device__ inline int chunk_offset(int row, int chunk) {
  return row * 64 + ((chunk ^ (row >> 1)) & 3) * 16;
}

__device__ inline void load_matrices(std::uint32_t to[4], const std::uint8_t* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(from))));
}

__device__ inline void multiply_bfloat16(float c[4], const std::uint32_t a[4], std::uint32_t b0,
                                         std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A block takes tile_rows rows and tile_tokens tokens; eight warps, four by two.
template <class F, int tile_rows, int tile_tokens>
__global__ void __launch_bounds__(float_tile_threads) float_tiles_kernel(RawMatmul a) {
  constexpr bool split_weights = F::format != formats::Format::bf16;
  constexpr int weight_bytes = tile_rows * 64, x_bytes = tile_tokens * 64;
  constexpr int stage_bytes = weight_bytes * (split_weights ? 2 : 1) + 2 * x_bytes;
  constexpr int row_steps = tile_rows / 64, token_steps = tile_tokens / 32;  // 16 each, of a warp
  constexpr int weight_runs = tile_rows * 4 / float_tile_threads;            // of eight, per thread
  constexpr int x_threads =
      tile_tokens * 4 < float_tile_threads ? tile_tokens * 4 : float_tile_threads;
  constexpr int x_runs = tile_tokens * 4 / x_threads;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const std::int64_t first_row = std::int64_t{blockIdx.x} * tile_rows;
  const std::int64_t first_token = std::int64_t{blockIdx.y} * tile_tokens;
  const int columns = static_cast<int>(a.columns);
  const auto* weights = static_cast<const std::uint8_t*>(a.blocks);

  constexpr int words = F::bytes / 2;  // of 16 bytes, that eight weights take
  uint4 w[weight_runs][words];
  float4 x[x_runs][2];
  const auto load = [&](int column) {
    const int at = column + thread % 4 * 8;
    const bool inside = at < columns;
#pragma unroll
    for (int i = 0; i < weight_runs; ++i) {
      const std::int64_t row = first_row + thread / 4 + i * (float_tile_threads / 4);
      const auto* from = reinterpret_cast<const uint4*>(
          weights + ((row < a.rows ? row : a.rows - 1) * a.columns + at) * F::bytes);
#pragma unroll
      for (int k = 0; k < words; ++k) w[i][k] = inside ? __ldg(from + k) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < x_runs; ++i) {
      const std::int64_t token = first_token + thread / 4 + i * (x_threads / 4);
      const bool there = inside && token < a.tokens && thread < x_threads;
      const auto* from = reinterpret_cast<const float4*>(a.x + token * a.columns + at);
      x[i][0] = there ? __ldg(from) : make_float4(0, 0, 0, 0);
      x[i][1] = there ? __ldg(from + 1) : make_float4(0, 0, 0, 0);
    }
  };
  const auto store = [&](std::uint8_t* stage) {
#pragma unroll
    for (int i = 0; i < weight_runs; ++i) {
      const int at = chunk_offset(thread / 4 + i * (float_tile_threads / 4), thread % 4);
      if constexpr (split_weights) {
        float values[8];
        constexpr int run = FloatRun<F>::count;
#pragma unroll
        for (int k = 0; k < words; ++k) FloatRun<F>::widen(w[i][k], values + k * run);
        const SplitEight parts = split_eight(values);
        *reinterpret_cast<uint4*>(stage + at) = parts.high;
        *reinterpret_cast<uint4*>(stage + weight_bytes + 2 * x_bytes + at) = parts.low;
      } else {
        *reinterpret_cast<uint4*>(stage + at) = w[i][0];
      }
    }
    if (thread < x_threads) {
#pragma unroll
      for (int i = 0; i < x_runs; ++i) {
        const float values[8] = {x[i][0].x, x[i][0].y, x[i][0].z, x[i][0].w,
                                 x[i][1].x, x[i][1].y, x[i][1].z, x[i][1].w};
        const SplitEight parts = split_eight(values);
        const int at = weight_bytes + chunk_offset(thread / 4 + i * (x_threads / 4), thread % 4);
        *reinterpret_cast<uint4*>(stage + at) = parts.high;
        *reinterpret_cast<uint4*>(stage + x_bytes + at) = parts.low;
      }
    }
  };

  const int warp_row = warp / 2 * (tile_rows / 4), warp_token = warp % 2 * (tile_tokens / 2);
  float c[row_steps][token_steps][2][4] = {};
  const auto multiply = [&](const std::uint8_t* stage) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t high[row_steps][4], low[row_steps][4];
#pragma unroll
      for (int r = 0; r < row_steps; ++r) {
        // Matrices: rows 0..7 and 8..15 of the first eight columns, the same of the next eight.
        const int at = chunk_offset(warp_row + r * 16 + lane % 16, 2 * half + lane / 16);
        load_matrices(high[r], stage + at);
        if constexpr (split_weights) load_matrices(low[r], stage + weight_bytes + 2 * x_bytes + at);
      }
#pragma unroll
      for (int t = 0; t < token_steps; ++t) {
        // Both halves of the columns of tokens 0..7, then of 8..15.
        const int at = weight_bytes + chunk_offset(warp_token + t * 16 + lane / 16 * 8 + lane % 8,
                                                   2 * half + lane / 8 % 2);
        std::uint32_t x_high[4], x_low[4];
        load_matrices(x_high, stage + at);
        load_matrices(x_low, stage + x_bytes + at);
#pragma unroll
        for (int r = 0; r < row_steps; ++r) {
#pragma unroll
          for (int n = 0; n < 2; ++n) {
            multiply_bfloat16(c[r][t][n], high[r], x_high[2 * n], x_high[2 * n + 1]);
            multiply_bfloat16(c[r][t][n], high[r], x_low[2 * n], x_low[2 * n + 1]);
            if constexpr (split_weights) {
              multiply_bfloat16(c[r][t][n], low[r], x_high[2 * n], x_high[2 * n + 1]);
            }
          }
        }
      }
    }
  };

  load(0);
  store(shared);
  std::uint8_t* now = shared;
  std::uint8_t* next = shared + stage_bytes;
  for (int column = 0; column < columns; column += float_step) {
    __syncthreads();
    const bool more = column + float_step < columns;
    if (more) load(column + float_step);
    multiply(now);
    if (more) store(next);
    std::uint8_t* other = now;
    now = next, next = other;
  }

  const int g = lane / 4, t4 = lane % 4;
#pragma unroll
  for (int r = 0; r < row_steps; ++r) {
#pragma unroll
    for (int t = 0; t < token_steps; ++t) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const std::int64_t row = first_row + warp_row + r * 16 + g + e / 2 * 8;
          const std::int64_t token = first_token + warp_token + t * 16 + n * 8 + 2 * t4 + e % 2;
          if (row >= a.rows || token >= a.tokens) continue;
          float& out = a.out[token * a.rows + row];
          const float total = c[r][t][n][e] + (a.bias != nullptr ? a.bias[row] : 0.0f);
          out = a.accumulate ? out + total : total;
        }
      }
    }
  }
}

template <class F>
cudaError_t launch_float_tiles(const RawMatmul& a, cudaStream_t stream) {
  const auto launch = [&]<int tile_rows, int tile_tokens>() {
    constexpr int parts = F::format == formats::Format::bf16 ? 1 : 2;
    constexpr int bytes = 2 * (parts * tile_rows + 2 * tile_tokens) * 64;
    const auto kernel = float_tiles_kernel<F, tile_rows, tile_tokens>;
    const cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (status != cudaSuccess) return status;
    const dim3 grid(static_cast<unsigned>((a.rows + tile_rows - 1) / tile_rows),
                    static_cast<unsigned>((a.tokens + tile_tokens - 1) / tile_tokens));
    kernel<<<grid, float_tile_threads, bytes, stream>>>(a);
    return cudaGetLastError();
  };
  if (a.tokens <= 32) return launch.template operator()<64, 32>();
  if (a.tokens <= 64) return launch.template operator()<64, 64>();
  return launch.template operator()<128, 128>();
}

// Eight columns at a time; other shapes take the kernel for raw blocks.
template <class F>
cudaError_t launch_float_matmul(const RawMatmul& a, cudaStream_t stream) {
  if (a.columns % 8 != 0 || a.rows == 0 || a.tokens == 0) return launch_raw_blocks<F>(a, stream);
  // Where tiles leave SMs idle, streaming the weights up to three times is faster: 16 tokens of F16
  // at 4096 x 4096, H200: 68 us against 104.
  const bool idle = a.rows <= 64 * 132 && a.tokens <= 3 * float_few_tokens;
  if (a.tokens > float_few_tokens && !a.invariant && !idle) return launch_float_tiles<F>(a, stream);
  for (RawMatmul part = a; part.tokens > 0; part.tokens -= float_few_tokens) {
    RawMatmul few = part;
    few.tokens = part.tokens < float_few_tokens ? part.tokens : float_few_tokens;
    const cudaError_t status = launch_float_rows<F>(few, stream);
    if (status != cudaSuccess) return status;
    part.x += few.tokens * part.columns, part.out += few.tokens * part.rows;
  }
  return cudaSuccess;
}

#define QL_FLOAT_MATMUL_INSTANCE(F)                                                    \
  template <>                                                                          \
  cudaError_t launch_raw_matmul<formats::F>(const RawMatmul& a, cudaStream_t stream) { \
    return launch_float_matmul<formats::F>(a, stream);                                 \
  }

}  // namespace quantloom::kernels
