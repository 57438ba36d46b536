// TQ2_0: 256 ternary weights in 66 bytes, value = d * (q - 1) with 2-bit q. Source: ggml,
// block_tq2_0. The encoder writes q = 0..2 only; 3 decodes to 2 * d.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct TQ2_0 {
  struct Block {
    std::uint8_t quants[64];  // [2][32]: bits 2r, 2r + 1 of byte i: weight 128n + 32r + i
    std::uint16_t scale;      // d, half
  };

  static constexpr Format format = Format::tq2_0;
  static constexpr const char* name = "TQ2_0";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 66;
  static constexpr int group = 32;  // the one scale of the block serves every group
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -1;
  static constexpr std::int8_t maximum_quant = 2;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int /*group_index*/) {
    return {half_to_float(block.scale), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const std::uint64_t bytes = load8(block.quants + 32 * (k / 16) + 8 * (k % 4));
    const int shift = 2 * (k / 4 % 4);
    unpack8(subtract8((bytes >> shift) & in_each_byte(3), 1), q);
  }
};

}  // namespace quantloom::formats
