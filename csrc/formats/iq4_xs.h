// IQ4_XS: 256 weights in 136 bytes, value = (d * (scale - 32)) * table[nibble], 6-bit scales per
// 32. Source: ggml, block_iq4_xs.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq4.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct IQ4_XS {
  struct Block {
    std::uint16_t scale;         // d, half
    std::uint16_t scales_high;   // bits 2g, 2g + 1: upper two bits of scale g
    std::uint8_t scales_low[4];  // nibble g % 2 of byte g / 2: lower four bits of scale g
    std::uint8_t quants[128];    // [8][16]: low nibbles: weights 32g + i, high: 32g + 16 + i
  };

  static constexpr Format format = Format::iq4_xs;
  static constexpr const char* name = "IQ4_XS";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 136;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -127;
  static constexpr std::int8_t maximum_quant = 113;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int low = (block.scales_low[group_index / 2] >> (4 * (group_index % 2))) & 15;
    const int high = (block.scales_high >> (2 * group_index)) & 3;
    return {multiply(half_to_float(block.scale), static_cast<float>((low | high << 4) - 32)), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int shift = k % 4 < 2 ? 0 : 4;
    unpack8(iq4_values(load8(block.quants + 16 * (k / 4) + 8 * (k & 1)) >> shift), q);
  }
};

}  // namespace quantloom::formats
