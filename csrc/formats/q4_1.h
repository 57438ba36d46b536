// Q4_1: 32 weights in 20 bytes, value = d * nibble + m. Source: ggml, block_q4_1.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct Q4_1 {
  struct Block {
    std::uint16_t scale;      // d, half
    std::uint16_t offset;     // m, half
    std::uint8_t quants[16];  // low nibbles: weights 0..15, high nibbles: weights 16..31
  };

  static constexpr Format format = Format::q4_1;
  static constexpr const char* name = "Q4_1";
  static constexpr bool quantized = true;
  static constexpr int elements = 32;
  static constexpr int bytes = 20;
  static constexpr int group = 32;
  static constexpr bool has_offset = true;
  static constexpr std::int8_t minimum_quant = 0;
  static constexpr std::int8_t maximum_quant = 15;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int /*group_index*/) {
    return {half_to_float(block.scale), half_to_float(block.offset)};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int shift = k < 2 ? 0 : 4;
    const std::uint64_t low = (load8(block.quants + 8 * (k & 1)) >> shift) & in_each_byte(15);
    unpack8(low, q);
  }
};

}  // namespace quantloom::formats
