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

// A group's quants as one or two A operands (planes.h).
template <class P, int addends = P::addends>
struct IntegerQuants {
  static constexpr bool subtracts = addends == 2 && P::subtracts;
  std::uint32_t a[addends][4];
  __device__ __forceinline__ IntegerQuants(const std::uint8_t* piece, int n, int group, int lane,
                                           const std::uint8_t* table) {
    if constexpr (addends == 1) {
      P::quants(piece, n, group, lane, a[0], table);
    } else {
      P::quant_addends(piece, n, group, lane, a);
    }
  }
  // Adds the products to c, and to `less` those that finish() takes away from it.
  __device__ __forceinline__ void multiply(int (&c)[4], int (&less)[4], std::uint32_t b0,
                                           std::uint32_t b1) const {
    multiply_int8<P::is_signed>(c, a[0], b0, b1);
    if constexpr (addends == 2) multiply_int8<P::is_signed>(subtracts ? less : c, a[1], b0, b1);
  }
  __device__ __forceinline__ static void finish(int (&c)[4], const int (&less)[4]) {
    if constexpr (subtracts) {
#pragma unroll
      for (int i = 0; i < 4; ++i) c[i] -= less[i];
    }
  }
};

// A lane's four columns in fixed point.
struct FixedColumns {
  std::uint32_t high, low;  // bytes
  float step;               // of the group of 32
  float sum;                // of the lane's group for sums, where there is one
};

// The bits of the largest absolute value of the lane's group of 32 columns. As integers these are
// ordered, with NaN above infinity above everything.
__device__ __forceinline__ unsigned group_largest(float4 x) {
  unsigned bits = max(max(__float_as_uint(fabsf(x.x)), __float_as_uint(fabsf(x.y))),
                      max(__float_as_uint(fabsf(x.z)), __float_as_uint(fabsf(x.w))));
#pragma unroll
  for (int i = 1; i < 8; i *= 2) bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, i));
  return bits;
}

// Of 128 columns: lane l holds four neighbours, eight lanes a group of 32; `sum_lanes` a group for
// sums, 0 for none.
template <int sum_lanes>
__device__ __forceinline__ FixedColumns fix_columns(float4 x, unsigned largest_bits) {
  const float largest = __uint_as_float(largest_bits);
  // A quarter, because this division by 2^126 and more gives 0.
  const float inverse = largest > 1e-34f ? __fdividef(8128.0f, 0.25f * largest) : 0.0f;
  FixedColumns fixed{};
  // With an infinity or NaN the step is NaN, and so is every sum with it.
  fixed.step = largest <= 1e-34f    ? 0.0f
               : largest < INFINITY ? largest * (1.0f / 32512.0f)
                                    : __int_as_float(0x7fffffff);
  // 1.5 * 2^23 + q has q in its low bits: a conversion to int takes eight times as long.
  constexpr float rounding = 12582912.0f;
  constexpr std::uint32_t rounding_bits = 0x4b400000;
  const auto fixed_point = [&](float value) {
    return __float_as_uint(fmaf(value, inverse, rounding));
  };
  const std::uint32_t q0 = fixed_point(x.x), q1 = fixed_point(x.y), q2 = fixed_point(x.z),
                      q3 = fixed_point(x.w);
  const auto bytes = [](std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d,
                        std::uint32_t selector) {
    return __byte_perm(__byte_perm(a, b, selector), __byte_perm(c, d, selector), 0x5410);
  };
  // high = (q + 128) >> 8; the low byte of q itself is q - 256 * high.
  fixed.high = bytes(q0 + 128, q1 + 128, q2 + 128, q3 + 128, 0x0051);
  fixed.low = bytes(q0, q1, q2, q3, 0x0040);
  if constexpr (sum_lanes > 0) {
    int sum = static_cast<int>(q0 + q1 + (q2 + q3) - 4 * rounding_bits);
#pragma unroll
    for (int i = 1; i < sum_lanes; i *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    fixed.sum = fixed.step * static_cast<float>(sum);
  }
  return fixed;
}

// column: of the lane's in its group of 32.
template <int sum_lanes>
__device__ __forceinline__ void store_columns(const FixedColumns& fixed, int lane, int column,
                                              std::int8_t* values, float* scales, float* sums) {
  std::int8_t* to = values + (lane >> 3) * 64 + column;
  *reinterpret_cast<std::uint32_t*>(to) = fixed.high;
  *reinterpret_cast<std::uint32_t*>(to + 32) = fixed.low;
  if ((lane & 7) == 0) scales[lane >> 3] = fixed.step;
  if constexpr (sum_lanes > 0) {
    if (lane % sum_lanes == 0) sums[lane / sum_lanes] = fixed.sum;
  }
}

template <int scale_group, bool has_offset>
__device__ inline void convert_columns(float4 x, unsigned largest_bits, int lane,
                                       std::int8_t* values, float* scales, float* sums) {
  constexpr int sum_lanes = has_offset ? scale_group / 4 : 0;
  store_columns<sum_lanes>(fix_columns<sum_lanes>(x, largest_bits), lane, (lane & 7) * 4, values,
                           scales, sums);
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

// x of one piece in shared memory, as multiply_piece takes it: per quad the B operands of its
// steps, and a lane's scale and sum.
template <class P>
struct SharedPiece {
  // Four groups of 32 weights fill an accumulator, or two where scales are per 16.
  static constexpr int steps = P::group / 8, quads = 8 / steps;
  const std::int8_t* values;
  const float* scales;
  const float* sums;
  const OwnColumns& own;
  int lane;

  struct Quad {
    uint2 x;
    const OwnColumns& own;
    __device__ uint2 operand(int step) const {
      return {x.x * own.factor[step], x.y * own.factor[step]};
    }
  };
  __device__ __forceinline__ Quad quad(int quad) const {
    const int g = lane >> 2, t = lane & 3;
    const int group = P::group == 32 ? 4 * quad + (g >> 1) : 2 * quad + (g >> 2);
    return {*reinterpret_cast<const uint2*>(values + group * 64 + (g & 1) * 32 + 8 * t), own};
  }
  __device__ static int group_of(int quad, int t) {
    return P::group == 32 ? 4 * quad + t : 2 * quad + (t >> 1);
  }
  __device__ float scale(int quad) const { return scales[group_of(quad, lane & 3)]; }
  __device__ float sum(int quad) const { return sums[4 * quad + (lane & 3)]; }
};

// Sums of one piece of n groups for rows g and g + 8, the lane's share.
template <class P, class X>
__device__ __forceinline__ void multiply_piece(const std::uint8_t* piece, int n, const X& x,
                                               const std::uint8_t* table, int lane, float& sum_g,
                                               float& sum_g8) {
  const int g = lane >> 2, t = lane & 3;
  constexpr int steps = SharedPiece<P>::steps;
#pragma unroll
  for (int quad = 0; quad < SharedPiece<P>::quads; ++quad) {
    const auto x_quad = x.quad(quad);
    int c[4] = {0, 0, 0, 0}, less[4] = {0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < steps; ++j) {
      const IntegerQuants<P> quants(piece, n, steps * quad + j, lane, table);
      const uint2 b = x_quad.operand(j);
      quants.multiply(c, less, b.x, b.y);
    }
    IntegerQuants<P>::finish(c, less);
    if (P::block_groups < 8 && SharedPiece<P>::group_of(quad, t) >= n) continue;
    const float scale = x.scale(quad);
    const formats::Affine first = P::affine(piece, n, g, quad, t);
    const formats::Affine second = P::affine(piece, n, g + 8, quad, t);
    sum_g += first.scale * (scale * static_cast<float>(c[0] * 256 + c[1]));
    sum_g8 += second.scale * (scale * static_cast<float>(c[2] * 256 + c[3]));
    if constexpr (P::has_offset) {
      const float sum = x.sum(quad);
      sum_g += first.offset * sum, sum_g8 += second.offset * sum;
    }
  }
}

template <class P>
__device__ __forceinline__ void multiply_piece(const std::uint8_t* piece, int n,
                                               const std::int8_t* values, const float* scales,
                                               const float* sums, const std::uint8_t* table,
                                               int lane, const OwnColumns& own, float& sum_g,
                                               float& sum_g8) {
  multiply_piece<P>(piece, n, SharedPiece<P>{values, scales, sums, own, lane}, table, lane, sum_g,
                    sum_g8);
}

}  // namespace quantloom::kernels
