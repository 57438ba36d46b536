// One warpgroup's 64 query rows in registers: scores, weights, sums. A thread holds rows r and
// r + 8 of its warp's 16, columns 8j + 2c and 8j + 2c + 1 of scores and sums, with r = lane / 4 and
// c = lane % 4.
#pragma once

#include "transformer/attention_numbers.cuh"
#include "transformer/attention_wgmma_sm90.cuh"

namespace quantloom::kernels {

constexpr int group_rows = 64;
constexpr int row_bytes = 128;  // of a swizzled block of 64 halves

template <int head_size, int positions>
struct SoftmaxRows {
  static constexpr int tile_block_bytes = positions * row_bytes;
  static constexpr int query_block_bytes = group_rows * row_bytes;

  float scores[positions / 2];
  std::uint32_t weights[positions / 4];
  float sums[head_size / 2];
  float peak[2];
  float mass[2];  // of this thread's columns
  float shrink[2];

  __device__ void reset() {
#pragma unroll
    for (int i = 0; i < head_size / 2; ++i) sums[i] = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      peak[half] = -INFINITY;
      mass[half] = 0;
    }
  }

  // scores = queries keys^T
  __device__ void issue_scores(std::uint32_t queries, std::uint32_t keys) {
    const std::uint64_t a = swizzled_matrix(queries);
    const std::uint64_t b = swizzled_matrix(keys);
    wgmma_fence();
    wgmma_scores<false, positions>(scores, a, b);
#pragma unroll
    for (int k = 1; k < head_size / 16; ++k) {
      wgmma_scores<true, positions>(scores, a + (k / 4 * query_block_bytes + k % 4 * 32) / 16,
                                    b + (k / 4 * tile_block_bytes + k % 4 * 32) / 16);
    }
    wgmma_commit();
  }

  // sums += weights values
  __device__ void issue_sums(std::uint32_t values) {
    const std::uint64_t b = swizzled_columns(values, tile_block_bytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < positions / 16; ++k) {
      wgmma_values<head_size>(sums, weights + 4 * k, b + k * 16 * row_bytes / 16);
    }
    wgmma_commit();
  }

  // tanh(x) = 1 - 2 / (1 + exp(2x)); scores come as 2 log2(e) x.
  __device__ void cap(float soft_cap) {
#pragma unroll
    for (int i = 0; i < positions / 2; ++i) {
      scores[i] = soft_cap * log2_e * (1.0f - __fdividef(2.0f, 1.0f + exp2_fast(scores[i])));
    }
  }

  // Row `half` sees columns oldest[half] .. newest[half] of the tile, in this thread's count.
  __device__ void mask(const int (&oldest)[2], const int (&newest)[2]) {
#pragma unroll
    for (int i = 0; i < positions / 2; ++i) {
      const int half = i / 2 % 2;
      const int column = i / 4 * 8 + i % 2;
      if (column > newest[half] || column < oldest[half]) scores[i] = -INFINITY;
    }
  }

  // Scores to weights, in float32 still.
  __device__ void soften() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = peak[half];
#pragma unroll
      for (int i = 0; i < positions / 2; i += 4) {
        top = fmaxf(top, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
      }
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float origin = top == -INFINITY ? 0.0f : top;  // nothing seen yet
      shrink[half] = exp2_fast(peak[half] - origin);
      peak[half] = top;
      float sum[2] = {0, 0};
#pragma unroll
      for (int i = 0; i < positions / 2; i += 4) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& s = scores[i + 2 * half + e];
          s = exp2_fast(s - origin);
          sum[e] += s;
        }
      }
      mass[half] = mass[half] * shrink[half] + (sum[0] + sum[1]);
    }
  }

  __device__ void shrink_sums() {
#pragma unroll
    for (int i = 0; i < head_size / 2; ++i) sums[i] *= shrink[i / 2 % 2];
  }

  __device__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < positions / 4; ++i) {
      weights[i] = pack_halves(scores[2 * i], scores[2 * i + 1]);
    }
  }

  // Makes `mass` the row's, and the sums averages if the row has seen all that it will.
  __device__ void finish(bool divide) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      mass[half] += __shfl_xor_sync(0xffffffffu, mass[half], 1);
      mass[half] += __shfl_xor_sync(0xffffffffu, mass[half], 2);
      shrink[half] = divide ? 1.0f / mass[half] : 1.0f;
    }
    shrink_sums();
  }

  // This thread's share of row r + 8 * half.
  __device__ void store(int half, float* to) const {
    to += threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < head_size / 8; ++j) {
      *reinterpret_cast<float2*>(to + 8 * j) =
          make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
    }
  }
};

}  // namespace quantloom::kernels
