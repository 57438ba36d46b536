// A piece times 2 to 8 tokens. x is 16-bit fixed point with a step per token and 256 columns, split
// into two int8 planes: the eight columns of a step are the planes of four tokens, a tile
// (few_activations.cuh). The offsets of a piece meet the sums of x in tf32 steps, whose columns 2t
// and 2t + 1 are the tokens t of the two tiles, as the sums of the int8 steps lie.
#pragma once

#include <type_traits>

#include "matmul/one_token.cuh"

namespace quantloom::kernels {

template <class P>
constexpr int piece_scale_groups = piece_columns / P::group;
// Scales of rows g and g + 8, [scale groups of a piece][8], of one warp: integers where the format
// has them.
template <class P>
using FewScales = std::conditional_t<P::has_integer_scales, int2, float2>;
template <class P>
constexpr int few_scale_bytes = piece_scale_groups<P> * 8 * sizeof(FewScales<P>);

__device__ inline void multiply_tf32(float c[4], const float a[4], const float b[2]) {
  const auto bits = [](float f) { return __float_as_uint(f); };
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(bits(a[0])), "r"(bits(a[1])), "r"(bits(a[2])), "r"(bits(a[3])), "r"(bits(b[0])),
        "r"(bits(b[1])));
}

// The first eleven bits of a float in high and the others in low, both exact in tf32 where it has
// no more than 22.
__device__ inline void split_tf32(float value, float& high, float& low) {
  high = __uint_as_float(__float_as_uint(value) & 0xffffe000u);
  low = value - high;
}

// The lane's sums of x, of 21 bits, over scale groups: B operands of eight groups each.
template <class P>
struct SumsOfX {
  static constexpr int steps = P::has_offset ? piece_scale_groups<P> / 8 : 0;
  float of[steps + 1][2];

  // from: [scale groups][tiles][4 tokens]
  template <int tiles>
  __device__ void read(const float* from, int lane) {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 2 * steps; ++i) {
      const int group = 4 * i + t;
      of[i / 2][i % 2] = (g & 1) < tiles ? from[(group * tiles + (g & 1)) * 4 + (g >> 1)] : 0;
    }
  }
};

// Every lane decodes the scales of its two rows' groups t, t + 4, ... for the warp, and adds its
// offsets' products to the sums.
template <class P>
__device__ inline void stage_scales(const std::uint8_t* piece, int n, int lane,
                                    const SumsOfX<P>& sums, FewScales<P>* scales, float to[4]) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int step = 0; step < piece_scale_groups<P> / 8; ++step) {
    // The reads come before the writes, for what they have in common to be read once.
    formats::Affine affine[2][2] = {};
    FewScales<P> scale[2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int quad = 2 * step + i;
      // What the slot holds behind a short piece may be NaN as a scale.
      const bool is_there = P::block_groups == 8 || (4 * quad + t) * P::group < n * 32;
      const formats::Affine first = P::affine(piece, n, g, quad, t);
      const formats::Affine second = P::affine(piece, n, g + 8, quad, t);
      if (is_there) affine[i][0] = first, affine[i][1] = second;
      if constexpr (P::has_integer_scales) {
        scale[i] = {P::integer_scale(piece, n, g, quad, t),
                    P::integer_scale(piece, n, g + 8, quad, t)};
      } else {
        scale[i] = {affine[i][0].scale, affine[i][1].scale};
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scales[(8 * step + 4 * i + t) * 8 + g] = scale[i];
    }
    if constexpr (P::has_offset) {
      float high[4], low[4], sum_high[2], sum_low[2];
#pragma unroll
      for (int i = 0; i < 4; ++i) split_tf32(affine[i / 2][i % 2].offset, high[i], low[i]);
#pragma unroll
      for (int i = 0; i < 2; ++i) split_tf32(sums.of[step][i], sum_high[i], sum_low[i]);
      multiply_tf32(to, high, sum_high);
      multiply_tf32(to, high, sum_low);
      multiply_tf32(to, low, sum_high);
      multiply_tf32(to, low, sum_low);
    }
  }
  __syncwarp();
}

// A piece's products without the steps of x: row g of tokens t and 4 + t, then row g + 8. Of a
// short piece all eight groups are multiplied: scales and x of the absent ones are zero, and a
// branch per group would keep the groups from overlapping.
template <class P, int tiles>
__device__ __forceinline__ void multiply_few(const std::uint8_t* piece, int n,
                                             const uint2 (&x)[piece_groups][tiles],
                                             const std::uint8_t* table, int lane,
                                             const FewScales<P>* scales, const std::uint32_t own[2],
                                             float to[4]) {
  constexpr int parts = 32 / P::group;  // scale groups of a group of 32 columns
  // Two products for each part take longer than one operand's instructions (NVFP4, 8 tokens, 28672
  // x 4096 on an H200: 40.1 us in place of 35.9).
  using Quants = IntegerQuants<P, parts == 1 ? P::addends : 1>;
  const int g = lane >> 2;
  // With integer scales a piece's sums of the planes stay below 2^30: 256 products of 2^15 and a
  // scale of 2^7.
  int high[4] = {}, low[4] = {};
#pragma unroll
  for (int j = 0; j < piece_groups; ++j) {
    const Quants quants(piece, n, j, lane, table);
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const FewScales<P> scale = scales[(j * parts + part) * 8 + g];
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        int c[4] = {0, 0, 0, 0}, less[4] = {0, 0, 0, 0};
        if constexpr (parts == 1) {
          quants.multiply(c, less, x[j][tile].x, x[j][tile].y);
        } else {
          quants.multiply(c, less, x[j][tile].x * own[part], x[j][tile].y * own[part]);
        }
        Quants::finish(c, less);
        if constexpr (P::has_integer_scales) {
          high[tile] += scale.x * c[0], low[tile] += scale.x * c[1];
          high[2 + tile] += scale.y * c[2], low[2 + tile] += scale.y * c[3];
        } else {
          to[tile] += scale.x * static_cast<float>(c[0] * 256 + c[1]);
          to[2 + tile] += scale.y * static_cast<float>(c[2] * 256 + c[3]);
        }
      }
    }
  }
  if constexpr (P::has_integer_scales) {
    const float unit[2] = {P::unit(piece, n, g), P::unit(piece, n, g + 8)};
#pragma unroll
    for (int row8 = 0; row8 < 2; ++row8) {
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        const int i = 2 * row8 + tile;
        to[i] += unit[row8] * fmaf(256.0f, static_cast<float>(high[i]), static_cast<float>(low[i]));
      }
    }
  }
}

}  // namespace quantloom::kernels
