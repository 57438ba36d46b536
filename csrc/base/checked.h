// Arithmetic on sizes that a file or a caller gave: every overflow is an Error, never a wrap.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "base/error.h"

namespace quantloom {

inline std::optional<std::uint64_t> try_multiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

inline std::optional<std::uint64_t> try_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

// The one gate from 64-bit sizes to the 32-bit sizes that kernels take.
// Errors: invalid_argument naming `what` when `value` is negative or above 2^31 - 1.
inline std::int32_t narrow_to_int32(std::int64_t value, const std::string& what) {
  constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max();
  if (value < 0 || value > limit) {
    throw Error(ErrorKind::invalid_argument,
                what + " is " + std::to_string(value) + ", outside 0 to " + std::to_string(limit),
                what, std::nullopt, static_cast<std::uint64_t>(limit));
  }
  return static_cast<std::int32_t>(value);
}

}  // namespace quantloom
