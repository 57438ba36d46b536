// x of 2 to 8 tokens in the registers of the warp that multiplies a piece: 16-bit fixed point with
// a step per token and 256 columns, q = 256 * high + low, as two int8 planes.
#pragma once

#include "matmul/few_product.cuh"

namespace quantloom::kernels {

// Tiles of four tokens, whose high and low plane are the columns 2i and 2i + 1 of an int8 step.
template <class P, int tiles>
struct FewX {
  uint2 values[piece_groups][tiles];
  float steps[tiles];  // of the tokens t
  SumsOfX<P> sums;

  // x [tokens, columns]; piece p has n groups of 32 columns. place: few_scale_bytes of the warp.
  // With an infinity or NaN the step is NaN, and so is every sum with it.
  __device__ void read(const float* x, int columns, int tokens, int p, int n, int lane,
                       float* place) {
    constexpr unsigned all = 0xffffffffu;
    constexpr int parts = 32 / P::group;  // scale groups of a group
    const int t = lane & 3, in_tile = lane >> 3;
    const bool is_low = lane & 4;
    // high = (q + 128) >> 8; the low byte of q itself is q - 256 * high.
    const std::uint32_t carry = is_low ? 0 : 128, bytes = is_low ? 0x0040 : 0x0051;
    // 1.5 * 2^23 + q has q in its low bits.
    constexpr float rounding = 12582912.0f;
    constexpr std::uint32_t rounding_bits = 0x4b400000;
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile) {
      const int token = 4 * tile + in_tile;
      const auto* from = reinterpret_cast<const float4*>(
          x + static_cast<std::int64_t>(token) * columns + p * piece_columns + t * 8);
      float4 v[piece_groups][2];
#pragma unroll
      for (int j = 0; j < piece_groups; ++j) {
        const bool is_there = token < tokens && (P::block_groups == 8 || j < n);
        v[j][0] = is_there ? from[j * 8] : float4{};
        v[j][1] = is_there ? from[j * 8 + 1] : float4{};
      }
      // As integers the absolute values are ordered, with NaN above infinity above everything.
      unsigned largest_bits = 0;
      const auto take = [&](float f) {
        largest_bits = max(largest_bits, __float_as_uint(fabsf(f)));
      };
#pragma unroll
      for (int j = 0; j < piece_groups; ++j) {
        for (const float4& f : v[j]) take(f.x), take(f.y), take(f.z), take(f.w);
      }
      largest_bits = max(largest_bits, __shfl_xor_sync(all, largest_bits, 1));
      largest_bits = max(largest_bits, __shfl_xor_sync(all, largest_bits, 2));
      const float largest = __uint_as_float(largest_bits);
      const float inverse = largest > 1e-34f ? 32512.0f * __frcp_rn(largest) : 0.0f;
      const float step = largest <= 1e-34f    ? 0.0f
                         : largest < INFINITY ? largest * (1.0f / 32512.0f)
                                              : __int_as_float(0x7fffffff);
      steps[tile] = __shfl_sync(all, step, t * 8);
#pragma unroll
      for (int j = 0; j < piece_groups; ++j) {
        std::uint32_t sum = 0;
        const auto fixed_point = [&](const float4& f) {
          const auto q = [&](float value) {
            return __float_as_uint(fmaf(value, inverse, rounding));
          };
          const std::uint32_t q0 = q(f.x), q1 = q(f.y), q2 = q(f.z), q3 = q(f.w);
          sum += q0 + q1 + (q2 + q3) - 4 * rounding_bits;
          return __byte_perm(__byte_perm(q0 + carry, q1 + carry, bytes),
                             __byte_perm(q2 + carry, q3 + carry, bytes), 0x5410);
        };
        values[j][tile].x = fixed_point(v[j][0]);
        values[j][tile].y = fixed_point(v[j][1]);
        if constexpr (P::has_offset) {
          sum += __shfl_xor_sync(all, sum, 1);
          if constexpr (parts == 1) sum += __shfl_xor_sync(all, sum, 2);
          if (!is_low && t % (4 / parts) == 0) {
            place[((j * parts + t * parts / 4) * tiles + tile) * 4 + in_tile] =
                static_cast<float>(static_cast<int>(sum));
          }
        }
      }
    }
    if constexpr (P::has_offset) {
      __syncwarp();
      sums.template read<tiles>(place, lane);
      __syncwarp();
    }
  }
};

}  // namespace quantloom::kernels
