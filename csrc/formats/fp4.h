// The four-bit float E2M1 of MXFP4 and NVFP4, doubled so that all its values are integers.
// Source: OCP Microscaling Formats (MX) v1.0, section 5.3.3.
#pragma once

#include <cstdint>

#include "formats/format.h"

namespace quantloom::formats {

// Bits 0..2 are the magnitude, bit 3 the sign: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
QL_HOST_DEVICE inline std::int8_t doubled_e2m1(int code) {
  constexpr std::uint64_t magnitudes = 0x0c08060403020100u;  // byte m: magnitude of code m
  const int magnitude = static_cast<int>((magnitudes >> (8 * (code & 7))) & 255u);
  return static_cast<std::int8_t>((code & 8) != 0 ? -magnitude : magnitude);
}

}  // namespace quantloom::formats
