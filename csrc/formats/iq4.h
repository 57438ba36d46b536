// The sixteen values that the nibbles of IQ4_NL and IQ4_XS stand for. Source: ggml.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/packed.h"

namespace quantloom::formats {

// For each byte's low four bits: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69,
// 89, 113
QL_HOST_DEVICE inline std::uint64_t iq4_values(std::uint64_t codes) {
  return lookup8(codes, 0xf6eaddcfbfad9881u, 0x7159453526190d01u);
}

}  // namespace quantloom::formats
