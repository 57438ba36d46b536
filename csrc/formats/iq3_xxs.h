// IQ3_XXS: 256 weights in 98 bytes, value = (d * (scale + 1/2) / 2) * (signed grid weight), 4-bit
// scales per 32, 256 grid rows of four. Source: ggml, block_iq3_xxs.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq_grids.h"

namespace quantloom::formats {

struct IQ3_XXS {
  struct Block {
    std::uint16_t scale;       // d, half
    std::uint8_t indices[64];  // grid index of weights 4j .. 4j + 3
    // [8][2]: of weights 32g .. 32g + 31, low word first: four times seven sign bits, 4-bit scale
    std::uint16_t signs_and_scale[16];
  };

  static constexpr Format format = Format::iq3_xxs;
  static constexpr const char* name = "IQ3_XXS";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 98;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -62;
  static constexpr std::int8_t maximum_quant = 62;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int scale = block.signs_and_scale[2 * group_index + 1] >> 12;
    return {multiply(half_to_float(block.scale), (static_cast<float>(scale) + 0.5f) * 0.5f), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const std::uint16_t* words = block.signs_and_scale + k / 4 * 2;
    const std::uint32_t signs = words[0] | static_cast<std::uint32_t>(words[1]) << 16;
    const std::uint64_t upper = iq3_xxs_grid()[block.indices[2 * k + 1]];
    const std::uint64_t row = iq3_xxs_grid()[block.indices[2 * k]] | upper << 32;
    apply_signs(row, signs_from_seven((signs >> (7 * (k % 4))) & 127u), q);
  }
};

}  // namespace quantloom::formats
