// MXFP4: 32 weights in 17 bytes, value = 2^(e - 127) * E2M1. Sources: OCP Microscaling Formats (MX)
// v1.0; ggml, block_mxfp4.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/fp4.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct MXFP4 {
  struct Block {
    std::uint8_t exponent;    // e, E8M0: a power of two; 255 decodes to 2^128 / 2, not to NaN
    std::uint8_t quants[16];  // low nibbles: weights 0..15, high nibbles: weights 16..31
  };

  static constexpr Format format = Format::mxfp4;
  static constexpr const char* name = "MXFP4";
  static constexpr bool quantized = true;
  static constexpr int elements = 32;
  static constexpr int bytes = 17;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -12;  // q is twice the E2M1 value
  static constexpr std::int8_t maximum_quant = 12;
  static_assert(sizeof(Block) == bytes);

  // scale is 2^(e - 128), half of the block's, since q is doubled. Below e = 2 it is subnormal.
  QL_HOST_DEVICE static Affine affine(const Block& block, int /*group_index*/) {
    const std::uint32_t e = block.exponent;
    return {bits_to_float(e < 2 ? 0x00200000u << e : (e - 1) << 23), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    const int shift = k < 2 ? 0 : 4;
    unpack8(doubled_e2m1(load8(block.quants + 8 * (k & 1)) >> shift), q);
  }
};

}  // namespace quantloom::formats
