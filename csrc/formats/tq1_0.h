// TQ1_0: 256 ternary weights in 54 bytes, value = d * trit, five trits a byte. Source: ggml,
// block_tq1_0.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"

namespace quantloom::formats {

struct TQ1_0 {
  struct Block {
    // A byte is the trits' base-3 number times 256 / 243, rounded up. Digit n (most significant
    // first) of byte i:
    std::uint8_t quants[48];  // bytes 0..31: weight 32n + i; bytes 32 + i: weight 160 + 16n + i
    std::uint8_t rest[4];     // weight 240 + 4n + i, n = 0..3
    std::uint16_t scale;      // d, half
  };

  static constexpr Format format = Format::tq1_0;
  static constexpr const char* name = "TQ1_0";
  static constexpr bool quantized = true;
  static constexpr int elements = 256;
  static constexpr int bytes = 54;
  static constexpr int group = 32;  // the one scale of the block serves every group
  static constexpr bool has_offset = false;
  static constexpr std::int8_t minimum_quant = -1;
  static constexpr std::int8_t maximum_quant = 1;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static Affine affine(const Block& block, int /*group_index*/) {
    return {half_to_float(block.scale), 0.0f};
  }

  QL_HOST_DEVICE static void quants8(const Block& block, int k, std::int8_t q[8]) {
    for (int i = 0; i < 8; ++i) {
      int byte = 0;
      int digit = 0;
      if (k < 20) {
        byte = block.quants[8 * (k % 4) + i];
        digit = k / 4;
      } else if (k < 30) {
        byte = block.quants[32 + 8 * (k % 2) + i];
        digit = (k - 20) / 2;
      } else {
        byte = block.rest[i % 4];
        digit = 2 * (k - 30) + i / 4;
      }
      q[i] = trit(byte, digit);
    }
  }

 private:
  QL_HOST_DEVICE static std::int8_t trit(int byte, int digit) {
    const int power = digit == 0 ? 1 : digit == 1 ? 3 : digit == 2 ? 9 : digit == 3 ? 27 : 81;
    return static_cast<std::int8_t>((((byte * power) & 255) * 3 >> 8) - 1);
  }
};

}  // namespace quantloom::formats
