// One token times pieces of a matrix: int8 tensor-core steps in exact integers.
//
// x is written per group of 32 columns as 16-bit fixed point q = 256 * high + low with a float
// scale. A step multiplies 16 rows x 32 columns by 8 columns, and only two (high and low) are in
// use by one group; so four groups follow each other into one accumulator, each in two columns of
// its own with zeros elsewhere, and lane t of a quad ends with the sums of group t. With scales per
// 16 weights the columns hold half groups instead.
#pragma once

#include "matmul/planes.h"

namespace quantloom::kernels {

template <bool is_signed>
__device__ inline void multiply_int8(int c[4], const std::uint32_t a[4], std::uint32_t b0,
                                     std::uint32_t b1) {
  if constexpr (is_signed) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// Converts 128 columns: lane l holds four neighbours, eight lanes a group of 32.
template <int scale_group, bool has_offset>
__device__ inline void convert_columns(float4 x, int lane, std::int8_t* values, float* scales,
                                       float* sums) {
  constexpr unsigned all = 0xffffffffu;
  // As integers the absolute values are ordered, with NaN above infinity above everything.
  unsigned largest_bits = max(max(__float_as_uint(fabsf(x.x)), __float_as_uint(fabsf(x.y))),
                              max(__float_as_uint(fabsf(x.z)), __float_as_uint(fabsf(x.w))));
#pragma unroll
  for (int i = 1; i < 8; i *= 2) {
    largest_bits = max(largest_bits, __shfl_xor_sync(all, largest_bits, i));
  }
  const float largest = __uint_as_float(largest_bits);
  const float inverse = largest > 1e-34f ? 32512.0f * __frcp_rn(largest) : 0.0f;
  // An infinity or NaN gives q = 0 and an infinite or NaN step, so every sum with it is NaN.
  const float step = largest <= 1e-34f ? 0.0f : largest * (1.0f / 32512.0f);
  const int q0 = __float2int_rn(x.x * inverse), q1 = __float2int_rn(x.y * inverse),
            q2 = __float2int_rn(x.z * inverse), q3 = __float2int_rn(x.w * inverse);
  const int h0 = (q0 + 128) >> 8, h1 = (q1 + 128) >> 8, h2 = (q2 + 128) >> 8, h3 = (q3 + 128) >> 8;
  const auto bytes = [](int a, int b, int c, int d) {
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
  };
  // The low byte of q itself is q - 256 * high.
  std::int8_t* to = values + (lane >> 3) * 64 + (lane & 7) * 4;
  *reinterpret_cast<std::uint32_t*>(to) = bytes(h0, h1, h2, h3);
  *reinterpret_cast<std::uint32_t*>(to + 32) = bytes(q0, q1, q2, q3);
  if ((lane & 7) == 0) scales[lane >> 3] = step;
  if constexpr (has_offset) {
    constexpr int lanes = scale_group / 4;
    int sum = q0 + q1 + q2 + q3;
#pragma unroll
    for (int i = 1; i < lanes; i *= 2) sum += __shfl_xor_sync(all, sum, i);
    if (lane % lanes == 0) sums[lane / lanes] = step * static_cast<float>(sum);
  }
}

// 1 where a lane's column of the B operand belongs to step j of an accumulator, else 0: x is
// multiplied by it, on the pipe for multiplications, because the one for logic is the busiest of
// this kernel.
struct OwnColumns {
  std::uint32_t factor[4];
  template <class P>
  __device__ static OwnColumns of(int lane) {
    const int g = lane >> 2, t = lane & 3;
    OwnColumns own{};
    for (int j = 0; j < 4; ++j) {
      own.factor[j] =
          P::group == 32 ? (g >> 1) == j : (g >> 2) == (j & 1) && ((g >> 1) & 1) == (t >> 1);
      // A compiler that knew it to be 0 or 1 would select, which is logic again.
      asm volatile("" : "+r"(own.factor[j]));
    }
    return own;
  }
};

// Sums of one piece for rows g and g + 8, the lane's share.
template <class P>
__device__ __forceinline__ void multiply_piece(const std::uint8_t* piece, int n,
                                               const std::int8_t* values, const float* scales,
                                               const float* sums, const std::uint8_t* table,
                                               int lane, const OwnColumns& own, float& sum_g,
                                               float& sum_g8) {
  const int g = lane >> 2, t = lane & 3;
  // Four groups of 32 weights fill an accumulator, or two where scales are per 16.
  constexpr int steps = P::group / 8;
#pragma unroll
  for (int quad = 0; quad < 8 / steps; ++quad) {
    const int x_group = P::group == 32 ? 4 * quad + (g >> 1) : 2 * quad + (g >> 2);
    const uint2 x = *reinterpret_cast<const uint2*>(values + x_group * 64 + (g & 1) * 32 + 8 * t);
    int c[4] = {0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < steps; ++j) {
      std::uint32_t a[4];
      P::quants(piece, n, steps * quad + j, lane, a, table);
      multiply_int8<P::is_signed>(c, a, x.x * own.factor[j], x.y * own.factor[j]);
    }
    const int group = P::group == 32 ? 4 * quad + t : 2 * quad + (t >> 1);
    if (P::block_groups < 8 && group >= n) continue;
    const float scale = scales[group];
    const formats::Affine first = P::affine(piece, n, g, quad, t);
    const formats::Affine second = P::affine(piece, n, g + 8, quad, t);
    sum_g += first.scale * (scale * static_cast<float>(c[0] * 256 + c[1]));
    sum_g8 += second.scale * (scale * static_cast<float>(c[2] * 256 + c[3]));
    if constexpr (P::has_offset) {
      const float sum = sums[4 * quad + t];
      sum_g += first.offset * sum, sum_g8 += second.offset * sum;
    }
  }
}

}  // namespace quantloom::kernels
