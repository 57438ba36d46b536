// IEEE binary16 and bfloat16 as raw bits, to and from float.
// Host code assumes no F16C: these are integer operations that any machine has. Subnormals come out
// right under flush-to-zero too, since no intermediate float is subnormal.
#pragma once

#include <bit>
#include <cstdint>

#include "formats/format.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace quantloom::formats {

QL_HOST_DEVICE inline float bits_to_float(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

QL_HOST_DEVICE inline std::uint32_t float_to_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  return std::bit_cast<std::uint32_t>(value);
#endif
}

QL_HOST_DEVICE inline float half_to_float(std::uint16_t half) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(half));
#else
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t exponent = half & 0x7c00u;
  const std::uint32_t shifted = (half & 0x7fffu) << 13;
  const std::uint32_t subnormal =
      float_to_bits(static_cast<float>(half & 0x03ffu) * 0x1p-24f);  // exact
  const std::uint32_t rebias = exponent == 0x7c00u ? 224u << 23 : 112u << 23;
  return bits_to_float(sign | (exponent == 0 ? subnormal : shifted + rebias));
#endif
}

// Rounds to nearest, ties to even. Above 65519.99 gives infinity; NaN stays NaN.
QL_HOST_DEVICE inline std::uint16_t float_to_half(float value) {
#if defined(__CUDA_ARCH__)
  return __half_as_ushort(__float2half_rn(value));
#else
  const std::uint32_t bits = float_to_bits(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520, halfway to the next power of two
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14, the smallest normal half
    half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  } else if (magnitude > 0x33000000u) {  // 2^-25 itself ties to even, which is zero
    const std::uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const std::uint32_t shift = 126u - (magnitude >> 23);
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u);
    const std::uint32_t tie = 1u << (shift - 1u);
    half = mantissa >> shift;
    if (rest > tie || (rest == tie && (half & 1u) != 0)) ++half;
  }
  return static_cast<std::uint16_t>(sign | half);
#endif
}

QL_HOST_DEVICE inline float bfloat16_to_float(std::uint16_t value) {
  return bits_to_float(static_cast<std::uint32_t>(value) << 16);
}

// Rounds to nearest, ties to even; NaN becomes quiet and stays NaN.
QL_HOST_DEVICE inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  }
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace quantloom::formats
