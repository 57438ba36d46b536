// Q3_K: 256 weights in 110 bytes, value = (d * (scale - 32)) * (q - 4) with 3-bit q and 6-bit
// scales per 16. Source: ggml, block_q3_K.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct Q3_K {
  struct Block {
    std::uint8_t high_bits[32];  // bit g of byte i: third bit of weight 32g + i
    std::uint8_t low_bits[64];   // [2][32]: bits 2r, 2r + 1 of byte i: weight 128n + 32r + i
    // scale j of weights 16j .. 16j + 15: lower four bits in the low (j < 8) or high nibble of byte
    // j % 8; upper two bits in bits 2(j / 4), 2(j / 4) + 1 of byte 8 + j % 4
    std::uint8_t scales[12];
    std::uint16_t scale;  // d, half
  };

  static constexpr Format format = Format::q3_k;
  static constexpr const char* name = "Q3_K";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 110;
  static constexpr int group = 16;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -4;
  static constexpr std::int8_t maximum_quant = 3;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const int low = (block.scales[group_index % 8] >> (group_index < 8 ? 0 : 4)) & 15;
    const int high = (block.scales[8 + group_index % 4] >> (2 * (group_index / 4))) & 3;
    return {multiply(half_to_float(block.scale), static_cast<float>((low | high << 4) - 32)), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const std::uint64_t low = load8(block.low_bits + 32 * (k / 16) + 8 * (k % 4));
    const std::uint64_t high = load8(block.high_bits + 8 * (k % 4));
    const int shift = 2 * (k / 4 % 4);
    const int bit = k / 4;
    const std::uint64_t bits =
        ((low >> shift) & in_each_byte(3)) | ((high >> bit) & in_each_byte(1)) << 2;
    unpack8(subtract8(bits, 4), q);
  }
};

}  // namespace quantloom::formats
