// Q2_K: 256 weights in 84 bytes, value = (d * scale) * q - (dmin * minimum) with 2-bit q and 4-bit
// scales and minima per 16. Source: ggml, block_q2_K.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct Q2_K {
  struct Block {
    std::uint8_t scales[16];      // low nibble: scale, high nibble: minimum of weights 16g..16g+15
    std::uint8_t quants[64];      // [2][32]: bits 2r, 2r + 1 of byte i: weight 128n + 32r + i
    std::uint16_t scale;          // d, half
    std::uint16_t minimum_scale;  // dmin, half
  };

  static constexpr Format format = Format::q2_k;
  static constexpr const char* name = "Q2_K";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 84;
  static constexpr int group = 16;
  static constexpr bool has_offset = true;
  static constexpr std::int8_t minimum_quant = 0;
  static constexpr std::int8_t maximum_quant = 3;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int packed = block.scales[group_index];
    return {multiply(half_to_float(block.scale), static_cast<float>(packed & 15)),
            -multiply(half_to_float(block.minimum_scale), static_cast<float>(packed >> 4))};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const std::uint64_t bytes = load8(block.quants + 32 * (k / 16) + 8 * (k % 4));
    const int shift = 2 * (k / 4 % 4);
    unpack8((bytes >> shift) & in_each_byte(3), q);
  }
};

}  // namespace quantloom::formats
