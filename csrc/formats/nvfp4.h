// NVFP4: 64 weights in 36 bytes, value = E4M3 scale * E2M1, scales per 16. Source: ggml,
// block_nvfp4.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/fp4.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct NVFP4 {
  struct Block {
    std::uint8_t scales[4];   // E4M3 without sign, bias 7, of weights 16g .. 16g + 15
    std::uint8_t quants[32];  // [4][8]: low nibbles: weights 16g + i, high: 16g + 8 + i
  };

  static constexpr Format format = Format::nvfp4;
  static constexpr const char* name = "NVFP4";
  static constexpr bool quantized = true;
  static constexpr int elements = 64;
  static constexpr int bytes = 36;
  static constexpr int group = 16;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -12;  // q is twice the E2M1 value
  static constexpr std::int8_t maximum_quant = 12;
  static_assert(sizeof(Block) == bytes);

  // scale is half of the group's, since q is doubled. 0x7f, E4M3's NaN, stands for zero; the top
  // bit is not looked at otherwise.
  QL_HOST_DEVICE static Affine affine(const Block& block, int group_index) {
    const std::uint32_t code = block.scales[group_index];
    if (code == 0x7f) return {0.0f, 0.0f};
    const std::uint32_t exponent = (code >> 3) & 15u;
    const std::uint32_t mantissa = code & 7u;
    if (exponent == 0) return {multiply(static_cast<float>(mantissa), 0x1p-10f), 0.0f};
    return {bits_to_float((exponent + 119u) << 23 | mantissa << 20), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int shift = (k & 1) == 0 ? 0 : 4;
    unpack8(doubled_e2m1(load8(block.quants + 8 * (k / 2)) >> shift), q);
  }
};

}  // namespace quantloom::formats
