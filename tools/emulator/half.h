// Half and bfloat16 numbers: values in the lower 16 bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace quantloom::emulator {

// Without branches, so that loops over lanes become vector instructions.
inline float half_to_float(std::uint16_t half) {
  const std::uint32_t magnitude = (half & 0x7fffu) << 13, sign = (half & 0x8000u) << 16;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  bits |= magnitude >= 31u << 23 ? 0x7f800000u : 0u;
  return std::bit_cast<float>(sign | bits);
}

// To nearest, ties to even.
inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  const std::uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  // Adding brings the last bit of a subnormal half to the last bit of the float.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  std::uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;
  result = magnitude > 0x7f800000u ? 0x7fffu : result | sign;
  return static_cast<std::uint16_t>(result);
}

inline float bfloat_to_float(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}
inline std::uint16_t float_to_bfloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
}

// Rounds to odd: a second rounding, to a half, then gives what one rounding would have given.
inline float to_odd_float(double value) {
  const float nearest = static_cast<float>(value);
  const double back = nearest;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
  const bool keeps = back == value or value != value or (bits & 1u) != 0;
  const std::uint32_t step = std::fabs(value) > std::fabs(back) ? 1u : 0xffffffffu;
  return std::bit_cast<float>(bits + (keeps ? 0u : step));
}

}  // namespace quantloom::emulator
