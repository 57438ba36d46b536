// Planes of the formats whose quants are plain integers.
#pragma once

#include "matmul/planes.h"

namespace quantloom::kernels {

using formats::Affine;

// One half per block of 32.
template <class F, int low_bits, int high_bits>
struct ScaledPlanes : LinearPlanes<F, low_bits, high_bits, 0, Span{0, 2, 1}> {
  using Base = LinearPlanes<F, low_bits, high_bits, 0, Span{0, 2, 1}>;
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint8_t* d = Base::template span<0>(piece, n, 4 * quad + t, row);
    return {load_half(d) * Base::factor, 0.0f};
  }
};

// A half for the scale and one for the offset per block of 32.
template <class F, int low_bits, int high_bits>
struct ShiftedPlanes : LinearPlanes<F, low_bits, high_bits, 0, Span{0, 4, 1}> {
  using Base = LinearPlanes<F, low_bits, high_bits, 0, Span{0, 4, 1}>;
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const auto pair =
        *reinterpret_cast<const __half2*>(Base::template span<0>(piece, n, 4 * quad + t, row));
    return {__low2float(pair) * Base::row_factor(row), __high2float(pair)};
  }
};

template <>
struct Planes<formats::Q4_0> : ScaledPlanes<formats::Q4_0, 4, 0> {};
template <>
struct Planes<formats::Q5_0> : ScaledPlanes<formats::Q5_0, 4, 1> {};
template <>
struct Planes<formats::Q8_0> : ScaledPlanes<formats::Q8_0, 8, 0> {};
template <>
struct Planes<formats::Q4_1> : ShiftedPlanes<formats::Q4_1, 4, 0> {};
template <>
struct Planes<formats::Q5_1> : ShiftedPlanes<formats::Q5_1, 4, 1> {};

// Q4_K and Q5_K: d, dmin and the 12 bytes of k_scales.h make one 16-byte word per row.
template <class F, int high_bits>
struct KPlanes : LinearPlanes<F, 4, high_bits, 0, Span{0, 16, 1}> {
  using Base = LinearPlanes<F, 4, high_bits, 0, Span{0, 16, 1}>;
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint4 w = *reinterpret_cast<const uint4*>(Base::template span<0>(piece, n, 0, row));
    const float2 d = __half22float2(*reinterpret_cast<const __half2*>(&w.x));
    const std::uint32_t a = w.y >> (8 * t), b = w.z >> (8 * t), c = w.w >> (8 * t);
    std::uint32_t scale, minimum;
    if (quad == 0) {
      scale = a & 63u, minimum = b & 63u;
    } else {
      scale = (c & 15u) | ((a >> 2) & 48u), minimum = ((c >> 4) & 15u) | ((b >> 2) & 48u);
    }
    return {d.x * Base::row_factor(row) * static_cast<float>(static_cast<int>(scale)),
            -d.y * static_cast<float>(static_cast<int>(minimum))};
  }
};

template <>
struct Planes<formats::Q4_K> : KPlanes<formats::Q4_K, 0> {};
template <>
struct Planes<formats::Q5_K> : KPlanes<formats::Q5_K, 1> {};

template <>
struct Planes<formats::Q6_K>
    : LinearPlanes<formats::Q6_K, 4, 2, 0, Span{192, 16, 1}, Span{208, 2, 1}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const auto scale = static_cast<std::int8_t>(span<0>(piece, n, 0, row)[4 * quad + t]);
    return {load_half(span<1>(piece, n, 0, row)) * factor * static_cast<float>(scale), 0.0f};
  }
};

template <>
struct Planes<formats::Q3_K>
    : LinearPlanes<formats::Q3_K, 2, 1, 0, Span{96, 12, 1}, Span{108, 2, 1}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint8_t* scales = span<0>(piece, n, 0, row);
    const std::uint32_t low = load_word(scales + 4 * (quad & 1)) >> (8 * t + 4 * (quad >> 1));
    const std::uint32_t high = load_word(scales + 8) >> (8 * t + 2 * quad);
    const int scale = static_cast<int>((low & 15u) | (high & 3u) << 4) - 32;
    return {load_half(span<1>(piece, n, 0, row)) * factor * static_cast<float>(scale), 0.0f};
  }
};

template <>
struct Planes<formats::Q2_K>
    : LinearPlanes<formats::Q2_K, 2, 0, 0, Span{0, 16, 1}, Span{80, 4, 1}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const int packed = span<0>(piece, n, 0, row)[4 * quad + t];
    const auto d = *reinterpret_cast<const __half2*>(span<1>(piece, n, 0, row));
    return {__low2float(d) * row_factor(row) * static_cast<float>(packed & 15),
            -__high2float(d) * static_cast<float>(packed >> 4)};
  }
};

// Codes 0 .. 3 stand for -1 .. 2, so the byte is the weight plus one.
template <>
struct Planes<formats::TQ2_0> : LinearPlanes<formats::TQ2_0, 2, 0, 1, Span{64, 2, 1}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int, int) {
    const float d = load_half(span<0>(piece, n, 0, row));
    return {d * row_factor(row), -d};
  }
};

}  // namespace quantloom::kernels
