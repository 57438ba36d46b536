// IQ1_S: 256 weights in 50 bytes, value = (d * (2 * scale + 1)) * (grid weight +- 1/8), 3-bit
// scales and the sign of the shift per 32, 2048 grid rows. Source: ggml, block_iq1_s.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq_grids.h"

namespace quantloom::formats {

struct IQ1_S {
  struct Block {
    std::uint16_t scale;       // d, half
    std::uint8_t indices[32];  // lower 8 bits of the grid index of weights 8k .. 8k + 7
    // of weights 32g .. 32g + 31: four times three upper bits of the grid indices, 3-bit scale, and
    // on top 1 where the shift is -1/8
    std::uint16_t high_bits[8];
  };

  static constexpr Format format = Format::iq1_s;
  static constexpr const char* name = "IQ1_S";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 50;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -9;
  static constexpr std::int8_t maximum_quant = 9;
  static_assert(sizeof(Block) == bytes);

  // q is eight times the shifted grid weight, so that it is an integer; dividing by 8 is exact.
  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int scale = (block.high_bits[group_index] >> 12) & 7;
    return {multiply(half_to_float(block.scale), static_cast<float>(2 * scale + 1) * 0.125f), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int packed = block.high_bits[k / 4];
    const int high = (packed >> (3 * (k % 4))) & 7;
    const int shift = (packed & 0x8000) != 0 ? -1 : 1;
    const std::uint64_t row = iq1_grid()[block.indices[k] | high << 8];
    for (int i = 0; i < 8; ++i) {
      const auto level = static_cast<std::int8_t>((row >> (8 * i)) & 255u);
      q[i] = static_cast<std::int8_t>(8 * level + shift);
    }
  }
};

}  // namespace quantloom::formats
