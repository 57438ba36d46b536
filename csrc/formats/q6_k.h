// Q6_K: 256 weights in 210 bytes, value = (d * scale) * (q - 32) with 6-bit q, scales per 16.
// Source: ggml, block_q6_K.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct Q6_K {
  struct Block {
    // [2][64]: byte i of half n holds in its low nibble the lower four bits of weight 128n + i, in
    // its high nibble those of weight 128n + 64 + i
    std::uint8_t low_bits[128];
    // [2][32]: bits 2r, 2r + 1 of byte i of half n: upper two bits of weight 128n + 32r + i
    std::uint8_t high_bits[64];
    std::int8_t scales[16];  // of weights 16g .. 16g + 15
    std::uint16_t scale;     // d, half
  };

  static constexpr Format format = Format::q6_k;
  static constexpr const char* name = "Q6_K";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 210;
  static constexpr int group = 16;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -32;
  static constexpr std::int8_t maximum_quant = 31;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    return {multiply(half_to_float(block.scale), static_cast<float>(block.scales[group_index])),
            0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int half = k / 16;
    const int quarter = k / 4 % 4;
    const std::uint64_t low = load8(block.low_bits + 64 * half + 8 * (k % 8));
    const std::uint64_t high = load8(block.high_bits + 32 * half + 8 * (k % 4));
    const int low_shift = quarter < 2 ? 0 : 4;
    const std::uint64_t bits =
        ((low >> low_shift) & in_each_byte(15)) | ((high >> (2 * quarter)) & in_each_byte(3)) << 4;
    unpack8(subtract8(bits, 32), q);
  }
};

}  // namespace quantloom::formats
