// IQ1_M: 256 weights in 56 bytes, value = (d * (2 * scale + 1)) * (grid weight +- 1/8), 3-bit
// scales per 16, the sign of the shift per 8, 2048 grid rows. Source: ggml, block_iq1_m.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/iq_grids.h"

namespace quantloom::formats {

struct IQ1_M {
  struct Block {
    std::uint8_t indices[32];  // lower 8 bits of the grid index of weights 8k .. 8k + 7
    // nibble k % 2 of byte k / 2: three upper bits of grid index k, and on top 1 where its shift
    // is -1/8
    std::uint8_t high_bits[16];
    // bits 3(g % 4) .. 3(g % 4) + 2 of word g / 4: scale of weights 16g .. 16g + 15; bits 12..15 of
    // the four words, first word lowest, make up d, half
    std::uint16_t scales[4];
  };

  static constexpr Format format = Format::iq1_m;
  static constexpr const char* name = "IQ1_M";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 56;
  static constexpr int group = 16;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -9;
  static constexpr std::int8_t maximum_quant = 9;
  static_assert(sizeof(Block) == bytes);

  // q is eight times the shifted grid weight, so that it is an integer; dividing by 8 is exact.
  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int d = block.scales[0] >> 12 | (block.scales[1] >> 8 & 0x00f0) |
                  (block.scales[2] >> 4 & 0x0f00) | (block.scales[3] & 0xf000);
    const int scale = (block.scales[group_index / 4] >> (3 * (group_index % 4))) & 7;
    return {multiply(half_to_float(static_cast<std::uint16_t>(d)),
                     static_cast<float>(2 * scale + 1) * 0.125f),
            0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int packed = block.high_bits[k / 2] >> (4 * (k % 2));
    const int shift = (packed & 8) != 0 ? -1 : 1;
    const std::uint64_t row = iq1_grid()[block.indices[k] | (packed & 7) << 8];
    for (int i = 0; i < 8; ++i) {
      const auto level = static_cast<std::int8_t>((row >> (8 * i)) & 255u);
      q[i] = static_cast<std::int8_t>(8 * level + shift);
    }
  }
};

}  // namespace quantloom::formats
