// The sixteen values that the nibbles of IQ4_NL and IQ4_XS stand for. Source: ggml.
#pragma once

#include <cstdint>

#include "formats/format.h"

namespace quantloom::formats {

// -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
QL_HOST_DEVICE inline std::int8_t iq4_value(int code) {
  constexpr std::uint64_t lower = 0xf6eaddcfbfad9881u;  // byte c: value of code c
  constexpr std::uint64_t upper = 0x7159453526190d01u;  // byte c: value of code c + 8
  const std::uint64_t half = (code & 8) != 0 ? upper : lower;
  return static_cast<std::int8_t>((half >> (8 * (code & 7))) & 255u);
}

}  // namespace quantloom::formats
