// What a warp of the wide kernel does with its 16 x tile_tokens sums. Lane 4g + t holds, for each
// block of eight tokens, row g of tokens 2t and 2t + 1 and the same of row g + 8.
#pragma once

#include "matmul/strips.cuh"

namespace quantloom::kernels {

// Loads in flight at a time, in blocks of eight tokens.
constexpr int store_batch = 4;

template <int tile_tokens>
__device__ inline void store_split(const float (&d)[tile_tokens / 2], float* sums, int padded_rows,
                                   int tokens, int lane) {
  const int t = lane & 3, g = lane >> 2;
  float* to = sums + static_cast<std::int64_t>(2 * t) * padded_rows + g;
#pragma unroll
  for (int i = 0; i < tile_tokens / 8; ++i, to += 8 * static_cast<std::int64_t>(padded_rows)) {
    if (8 * i + 2 * t < tokens) to[0] = d[4 * i], to[8] = d[4 * i + 2];
    if (8 * i + 2 * t + 1 < tokens) {
      to[padded_rows] = d[4 * i + 1], to[padded_rows + 8] = d[4 * i + 3];
    }
  }
}

template <int tile_tokens>
__device__ inline void store_tile(const float (&d)[tile_tokens / 2], const StripList& list,
                                  Strip strip, int first_token, const float* scales, float back,
                                  int lane) {
  const int t = lane & 3, g = lane >> 2;
  const int row = strip.index * strip_rows + g, rows = list.rows[strip.weight];
  const bool inside[2] = {row < rows, row + 8 < rows};
  const float* bias = list.bias[strip.weight];
  const float shift[2] = {bias != nullptr && inside[0] ? bias[row] : 0.0f,
                          bias != nullptr && inside[1] ? bias[row + 8] : 0.0f};
  const bool add = list.epilogue == MatmulEpilogue::add;
  const float* scale = scales + first_token + 2 * t;
  float* out = list.out[strip.weight] + static_cast<std::int64_t>(first_token + 2 * t) * rows + row;
  const int left = list.tokens - first_token - 2 * t;
  constexpr int batch = tile_tokens / 8 < store_batch ? tile_tokens / 8 : store_batch;
#pragma unroll
  for (int b = 0; b < tile_tokens / 8; b += batch) {
    float old[4 * batch];
    float2 factor[batch];
    // Element e of a block: token 2t + (e & 1), row g + 8 (e >> 1).
    const auto at = [&](int i, int e) {
      return out + static_cast<std::int64_t>(8 * (b + i) + (e & 1)) * rows + 8 * (e >> 1);
    };
    const auto valid = [&](int i, int e) { return inside[e >> 1] && 8 * (b + i) + (e & 1) < left; };
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      factor[i] = *reinterpret_cast<const float2*>(scale + 8 * (b + i));
#pragma unroll
      for (int e = 0; e < 4; ++e) old[4 * i + e] = shift[e >> 1];
    }
    if (add) {
#pragma unroll
      for (int i = 0; i < batch; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (valid(i, e)) old[4 * i + e] += *at(i, e);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < batch; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float sum = d[4 * (b + i) + e] * ((e & 1 ? factor[i].y : factor[i].x) * back);
        if (valid(i, e)) *at(i, e) = sum + old[4 * i + e];
      }
    }
  }
}

// Two warps, an even one with the gate and the next with the other weight; `pair` holds 16 rows x
// 16 tokens.
template <int tile_tokens>
__device__ inline void store_pair(const float (&d)[tile_tokens / 2], const StripList& list,
                                  Strip strip, bool stored, int first_token, const float* scales,
                                  float back, int warp, int lane, float* pair) {
  const int t = lane & 3;
  const float* scale = scales + first_token + 2 * t;
  const auto meet = [&] { asm volatile("bar.sync %0, 64;" ::"r"(1 + warp / 2) : "memory"); };
#pragma unroll
  for (int b = 0; b < tile_tokens / 8; b += 2) {
    float sums[8];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 factor = *reinterpret_cast<const float2*>(scale + 8 * (b + i));
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[4 * i + e] = d[4 * (b + i) + e] * ((e & 1 ? factor.y : factor.x) * back);
      }
    }
    if (warp % 2 == 1) {
#pragma unroll
      for (int i = 0; i < 8; ++i) pair[i * 32 + lane] = sums[i];
    }
    meet();
    if (warp % 2 == 0 && stored) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int token = first_token + 8 * (b + i / 4) + 2 * t + (i & 1);
        if (token < list.tokens) {
          store_gated(list, strip.index, (lane >> 2) + 8 * (i >> 1 & 1), token, sums[i],
                      pair[i * 32 + lane]);
        }
      }
    }
    meet();
  }
}

}  // namespace quantloom::kernels
