// IQ2_XS: 256 weights in 74 bytes, value = (d * (scale + 1/2) / 4) * (signed grid weight), 4-bit
// scales per 16, 512 grid rows. Source: ggml, block_iq2_xs.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq_grids.h"

namespace quantloom::formats {

struct IQ2_XS {
  struct Block {
    std::uint16_t scale;       // d, half
    std::uint16_t quants[32];  // of weights 8k .. 8k + 7: 9-bit grid index, above it 7 sign bits
    std::uint8_t scales[8];    // nibble g % 2 of byte g / 2: scale of weights 16g .. 16g + 15
  };

  static constexpr Format format = Format::iq2_xs;
  static constexpr const char* name = "IQ2_XS";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 74;
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
    const std::uint32_t packed = block.quants[k];
    apply_signs(iq2_xs_grid()[packed & 511u], signs_from_seven(packed >> 9), q);
  }
};

}  // namespace quantloom::formats
