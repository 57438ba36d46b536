// IQ3_S: 256 weights in 110 bytes, value = (d * (2 * scale + 1)) * (signed grid weight), 4-bit
// scales per 32, 512 grid rows of four. Source: ggml, block_iq3_s.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq_grids.h"

namespace quantloom::formats {

struct IQ3_S {
  struct Block {
    std::uint16_t scale;        // d, half
    std::uint8_t indices[64];   // lower 8 bits of the grid index of weights 4j .. 4j + 3
    std::uint8_t high_bits[8];  // bit j % 8 of byte j / 8: ninth bit of grid index j
    std::uint8_t signs[32];     // bit i of byte k: weight 8k + i is negative
    std::uint8_t scales[4];     // nibble g % 2 of byte g / 2: scale of weights 32g .. 32g + 31
  };

  static constexpr Format format = Format::iq3_s;
  static constexpr const char* name = "IQ3_S";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 110;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -15;
  static constexpr std::int8_t maximum_quant = 15;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int scale = (block.scales[group_index / 2] >> (4 * (group_index % 2))) & 15;
    return {multiply(half_to_float(block.scale), static_cast<float>(2 * scale + 1)), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int high = block.high_bits[k / 4] >> (2 * (k % 4));
    const std::uint64_t lower = iq3_s_grid()[block.indices[2 * k] | (high & 1) << 8];
    const std::uint64_t upper = iq3_s_grid()[block.indices[2 * k + 1] | (high & 2) << 7];
    apply_signs(lower | upper << 32, block.signs[k], q);
  }
};

}  // namespace quantloom::formats
