// IQ2_XXS: 256 weights in 66 bytes, value = (d * (scale + 1/2) / 4) * (signed grid weight), 4-bit
// scales per 32, 256 grid rows. Source: ggml, block_iq2_xxs.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq_grids.h"

namespace quantloom::formats {

struct IQ2_XXS {
  struct Block {
    std::uint16_t scale;  // d, half
    // [8][4]: of weights 32g .. 32g + 31: two words of four 8-bit grid indices, two words with
    // four times seven sign bits and, on top, the 4-bit scale
    std::uint16_t quants[32];
  };

  static constexpr Format format = Format::iq2_xxs;
  static constexpr const char* name = "IQ2_XXS";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 66;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -43;
  static constexpr std::int8_t maximum_quant = 43;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int scale = block.quants[4 * group_index + 3] >> 12;
    return {multiply(half_to_float(block.scale), (static_cast<float>(scale) + 0.5f) * 0.25f), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const std::uint16_t* source = block.quants + k / 4 * 4;
    const std::uint32_t index = (source[k % 4 / 2] >> (8 * (k % 2))) & 255u;
    const std::uint32_t signs = source[2] | static_cast<std::uint32_t>(source[3]) << 16;
    apply_signs(iq2_xxs_grid()[index], signs_from_seven((signs >> (7 * (k % 4))) & 127u), q);
  }
};

}  // namespace quantloom::formats
