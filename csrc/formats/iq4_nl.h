// IQ4_NL: 32 weights in 18 bytes, value = d * table[nibble]. Source: ggml, block_iq4_nl.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq4.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct IQ4_NL {
  struct Block {
    std::uint16_t scale;      // d, half
    std::uint8_t quants[16];  // low nibbles: weights 0..15, high nibbles: weights 16..31
  };

  static constexpr Format format = Format::iq4_nl;
  static constexpr const char* name = "IQ4_NL";
  static constexpr bool quantized = true;
  static constexpr int elements = 32;
  static constexpr int bytes = 18;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -127;
  static constexpr std::int8_t maximum_quant = 113;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int /*group_index*/) {
    return {half_to_float(block.scale), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int shift = k < 2 ? 0 : 4;
    unpack8(iq4_values(load8(block.quants + 8 * (k & 1)) >> shift), q);
  }
};

}  // namespace quantloom::formats
