// Q8_0: 32 weights in 34 bytes, value = d * q with signed 8-bit q. Source: ggml, block_q8_0.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/packed.h"

namespace quantloom::formats {

struct Q8_0 {
  struct Block {
    std::uint16_t scale;     // d, half
    std::int8_t quants[32];  // weights 0..31
  };

  static constexpr Format format = Format::q8_0;
  static constexpr const char* name = "Q8_0";
  static constexpr bool quantized = true;
  static constexpr int elements = 32;
  static constexpr int bytes = 34;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -128;
  static constexpr std::int8_t maximum_quant = 127;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int /*group_index*/) {
    return {half_to_float(block.scale), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    unpack8(load8(block.quants + 8 * k), q);
  }
};

}  // namespace quantloom::formats
