// Q5_K: 256 weights in 176 bytes, value = (d * scale) * q - (dmin * minimum) with 5-bit q, scales
// per 32. Source: ggml, block_q5_K.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/k_scales.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct Q5_K {
  struct Block {
    std::uint16_t scale;          // d, half: times the 6-bit scales
    std::uint16_t minimum_scale;  // dmin, half: times the 6-bit minima
    std::uint8_t scales[12];      // 8 scales and 8 minima, see k_scales.h
    std::uint8_t high_bits[32];   // bit g of byte i: fifth bit of weight 32g + i
    std::uint8_t quants[128];     // [4][32]: low nibbles: weights 64c + i, high: 64c + 32 + i
  };

  static constexpr Format format = Format::q5_k;
  static constexpr const char* name = "Q5_K";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 176;
  static constexpr int group = 32;
  static constexpr bool has_offset = true;
  static constexpr std::int8_t minimum_quant = 0;
  static constexpr std::int8_t maximum_quant = 31;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const ScaleAndMinimum packed = unpack_scale_and_minimum(block.scales, group_index);
    return {multiply(half_to_float(block.scale), static_cast<float>(packed.scale)),
            -multiply(half_to_float(block.minimum_scale), static_cast<float>(packed.minimum))};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const std::uint64_t low = load8(block.quants + 32 * (k / 8) + 8 * (k % 4));
    const std::uint64_t high = load8(block.high_bits + 8 * (k % 4));
    const int shift = k % 8 < 4 ? 0 : 4;
    const int bit = k / 4;
    unpack8(((low >> shift) & in_each_byte(15)) | ((high >> bit) & in_each_byte(1)) << 4, q);
  }
};

}  // namespace quantloom::formats
