// The 12 bytes that hold eight 6-bit scales and eight 6-bit minima in Q4_K and Q5_K.
//
//   bytes 0..3    bits 0-5: scale j,      bits 6-7: upper two bits of scale j + 4   (j = 0..3)
//   bytes 4..7    bits 0-5: minimum j,    bits 6-7: upper two bits of minimum j + 4
//   bytes 8..11   bits 0-3: lower four bits of scale j + 4, bits 4-7: of minimum j + 4
#pragma once

#include <cstdint>

#include "formats/format.h"

namespace quantloom::formats {

struct ScaleAndMinimum {
  int scale;    // 0..63
  int minimum;  // 0..63
};

QL_HOST_DEVICE inline ScaleAndMinimum unpack_scale_and_minimum(const std::uint8_t packed[12],
                                                               int index) {
  if (index < 4) return {packed[index] & 63, packed[index + 4] & 63};
  const int low = packed[index + 4];
  return {(low & 15) | (packed[index - 4] >> 6) << 4, low >> 4 | (packed[index] >> 6) << 4};
}

}  // namespace quantloom::formats
