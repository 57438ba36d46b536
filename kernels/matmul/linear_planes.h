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
  static constexpr bool has_integer_scales = true, has_k_scales = true;
  __device__ static uint4 word(const std::uint8_t* piece, int n, int row) {
    return *reinterpret_cast<const uint4*>(Base::template span<0>(piece, n, 0, row));
  }
  // d and dmin.
  __device__ static float2 units(const uint4& w) {
    return __half22float2(*reinterpret_cast<const __half2*>(&w.x));
  }
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return units(word(piece, n, row)).x * Base::row_factor(row);
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint4 w = word(piece, n, row);
    const std::uint32_t a = w.y >> (8 * t), c = w.w >> (8 * t);
    return static_cast<int>(quad == 0 ? a & 63u : (c & 15u) | ((a >> 2) & 48u));
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint4 w = word(piece, n, row);
    const std::uint32_t b = w.z >> (8 * t), c = w.w >> (8 * t);
    const std::uint32_t minimum = quad == 0 ? b & 63u : ((c >> 4) & 15u) | ((b >> 2) & 48u);
    return {unit(piece, n, row) * static_cast<float>(integer_scale(piece, n, row, quad, t)),
            -units(w).y * static_cast<float>(static_cast<int>(minimum))};
  }
};

template <>
struct Planes<formats::Q4_K> : KPlanes<formats::Q4_K, 0> {};
template <>
struct Planes<formats::Q5_K> : KPlanes<formats::Q5_K, 1> {};

template <>
struct Planes<formats::Q6_K>
    : LinearPlanes<formats::Q6_K, 4, 2, 0, Span{192, 16, 1}, Span{208, 2, 1}> {
  static constexpr bool has_integer_scales = true;
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return load_half(span<1>(piece, n, 0, row)) * factor;
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return static_cast<std::int8_t>(span<0>(piece, n, 0, row)[4 * quad + t]);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return {unit(piece, n, row) * static_cast<float>(integer_scale(piece, n, row, quad, t)), 0.0f};
  }
};

template <>
struct Planes<formats::Q3_K>
    : LinearPlanes<formats::Q3_K, 2, 1, 0, Span{96, 12, 1}, Span{108, 2, 1}> {
  static constexpr bool has_integer_scales = true;
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return load_half(span<1>(piece, n, 0, row)) * factor;
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint8_t* scales = span<0>(piece, n, 0, row);
    const std::uint32_t low = load_word(scales + 4 * (quad & 1)) >> (8 * t + 4 * (quad >> 1));
    const std::uint32_t high = load_word(scales + 8) >> (8 * t + 2 * quad);
    return static_cast<int>((low & 15u) | (high & 3u) << 4) - 32;
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return {unit(piece, n, row) * static_cast<float>(integer_scale(piece, n, row, quad, t)), 0.0f};
  }
};

template <>
struct Planes<formats::Q2_K>
    : LinearPlanes<formats::Q2_K, 2, 0, 0, Span{0, 16, 1}, Span{80, 4, 1}> {
  static constexpr bool has_integer_scales = true;
  // A scale and a minimum in a byte, and d and dmin.
  __device__ static int packed(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return span<0>(piece, n, 0, row)[4 * quad + t];
  }
  __device__ static __half2 units(const std::uint8_t* piece, int n, int row) {
    return *reinterpret_cast<const __half2*>(span<1>(piece, n, 0, row));
  }
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return __low2float(units(piece, n, row)) * row_factor(row);
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return packed(piece, n, row, quad, t) & 15;
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const int both = packed(piece, n, row, quad, t);
    const __half2 d = units(piece, n, row);
    return {__low2float(d) * row_factor(row) * static_cast<float>(both & 15),
            -__high2float(d) * static_cast<float>(both >> 4)};
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
