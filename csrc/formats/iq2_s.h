// IQ2_S: 256 weights in 82 bytes, value = (d * (scale + 1/2) / 4) * (signed grid weight), 4-bit
// scales per 16, 1024 grid rows. Source: ggml, block_iq2_s.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq_grids.h"

namespace quantloom::formats {

struct IQ2_S {
  struct Block {
    std::uint16_t scale;        // d, half
    std::uint8_t indices[32];   // lower 8 bits of the grid index of weights 8k .. 8k + 7
    std::uint8_t signs[32];     // bit i of byte k: weight 8k + i is negative
    std::uint8_t high_bits[8];  // bits 2l, 2l + 1 of byte b: upper bits of grid index 4b + l
    std::uint8_t scales[8];     // nibble g % 2 of byte g / 2: scale of weights 16g .. 16g + 15
  };

  static constexpr Format format = Format::iq2_s;
  static constexpr const char* name = "IQ2_S";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 82;
  static constexpr int group = 16;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -43;
  static constexpr std::int8_t maximum_quant = 43;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int scale = (block.scales[group_index / 2] >> (4 * (group_index % 2))) & 15;
    return {multiply(half_to_float(block.scale), (static_cast<float>(scale) + 0.5f) * 0.25f), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int high = (block.high_bits[k / 4] >> (2 * (k % 4))) & 3;
    apply_signs(iq2_s_grid()[block.indices[k] | high << 8], block.signs[k], q);
  }
};

}  // namespace quantloom::formats
