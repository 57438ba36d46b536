// The four-bit float E2M1 of MXFP4 and NVFP4, doubled so that all its values are integers.
// Source: OCP Microscaling Formats (MX) v1.0, section 5.3.3.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/packed.h"

namespace quantloom::formats {

// Bits 0..2 are the magnitude, bit 3 the sign: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
QL_HOST_DEVICE inline std::uint64_t doubled_e2m1(std::uint64_t codes) {
  return lookup8(codes, 0x0c08060403020100u, 0xf4f8fafcfdfeff00u);
}

}  // namespace quantloom::formats
