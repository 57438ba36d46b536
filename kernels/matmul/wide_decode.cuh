// From a piece to wgmma's A operands: first the scales of its 16 rows, as pairs of halves in shared
// memory, then group after group.
#pragma once

#include "matmul/codebook_planes.h"
#include "matmul/halves.cuh"
#include "matmul/linear_planes.h"

namespace quantloom::kernels {

__device__ inline std::uint32_t twice(float v) { return half_bits(__floats2half2_rn(v, v)); }

// Eight scales and minimums of six bits each, without conversions from integers: those go through a
// unit that takes eight cycles a warp.
template <class P>
__device__ inline void stage_k_scales(const std::uint8_t* piece, int n, int lane, float scale,
                                      std::uint32_t* to) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
    const uint4 w = *reinterpret_cast<const uint4*>(P::template span<0>(piece, n, 0, row));
    const float2 d = __half22float2(*reinterpret_cast<const __half2*>(&w.x));
    const float factor = d.x * P::row_factor(row) * scale, offset = -d.y * scale;
    // Byte t as 2^23 plus its value.
    const auto value = [&](std::uint32_t bytes) {
      return __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7440u | t)) - 8388608.0f;
    };
    const auto put = [&](int group, std::uint32_t scales, std::uint32_t minimums) {
      const float own = factor * value(scales);
      *reinterpret_cast<uint2*>(to + row * affine_row_words<P> + group * 2) = make_uint2(
          twice(own), twice(centred_offset<P>(own, offset * value(minimums), half == 1)));
    };
    put(t, w.y & 0x3f3f3f3fu, w.z & 0x3f3f3f3fu);
    put(4 + t, (w.w & 0x0f0f0f0fu) | ((w.y >> 2) & 0x30303030u),
        ((w.w >> 4) & 0x0f0f0f0fu) | ((w.z >> 2) & 0x30303030u));
  }
  __syncwarp();
}

template <class P>
__device__ inline void stage_scales(const std::uint8_t* piece, int n, int lane, float scale,
                                    std::uint32_t* to) {
  if constexpr (P::has_k_scales) {
    stage_k_scales<P>(piece, n, lane, scale, to);
    return;
  }
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int quad = 0; quad < piece_scales<P> / 4; ++quad) {
    const int group = 4 * quad + t;
    const bool is_there = P::block_groups == 8 || group * P::group < n * 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = g + 8 * half;
      // What the slot holds behind a short piece may be NaN as a scale.
      const formats::Affine found = P::affine(piece, n, row, quad, t);
      const formats::Affine a = is_there ? found : formats::Affine{};
      std::uint32_t* at = to + row * affine_row_words<P> + group * affine_words<P>;
      if constexpr (P::has_offset) {
        *reinterpret_cast<uint2*>(at) = make_uint2(
            twice(a.scale * scale), twice(centred_offset<P>(a.scale, a.offset, half == 1) * scale));
      } else {
        *at = twice(a.scale * scale);
      }
    }
  }
  __syncwarp();
}

// The A operands of the two steps of group j: zeros where a short piece has no such group, for its
// scales are.
template <class P>
__device__ inline void decode_group(const std::uint8_t* piece, int n, int j, int lane,
                                    const std::uint32_t* affine, const std::uint8_t* table,
                                    std::uint32_t (&first)[4], std::uint32_t (&second)[4]) {
  const int t = lane & 3, g = lane >> 2;
  std::uint32_t a[4];
  P::quants(piece, n, j, lane, a, table);
  const int scale_group = P::group == 32 ? j : 2 * j + (t >> 1);
  widen_fragment<P>(a, read_affine<P>(affine, g, scale_group),
                    read_affine<P>(affine, g + 8, scale_group), first, second);
}

}  // namespace quantloom::kernels
