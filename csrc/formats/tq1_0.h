// TQ1_0: 256 ternary weights in 54 bytes, value = d * trit, five trits a byte. Source: ggml,
// block_tq1_0.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"
#include "formats/packed.h"

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
    if (k < 20) {
      unpack8(trits(load8(block.quants + 8 * (k % 4)), k / 4), q);
    } else if (k < 30) {
      unpack8(trits(load8(block.quants + 32 + 8 * (k % 2)), (k - 20) / 2), q);
    } else {
      std::uint32_t four;
      memcpy(&four, block.rest, sizeof(four));
      const std::uint64_t low = trits(four, 2 * (k - 30));
      const std::uint64_t high = trits(four, 2 * (k - 30) + 1);
      unpack8((low & 0xffffffffu) | high << 32, q);
    }
  }

 private:
  // Digit n of a byte is (byte * 3^n mod 256) * 3 / 256. Even and odd bytes take turns in 16-bit
  // lanes, which hold 255 * 81.
  QL_HOST_DEVICE static std::uint64_t trits(std::uint64_t bytes, int digit) {
    constexpr std::uint64_t even = 0x00ff00ff00ff00ffu;
    const std::uint64_t power = digit == 0   ? 1
                                : digit == 1 ? 3
                                : digit == 2 ? 9
                                : digit == 3 ? 27
                                             : 81;
    const std::uint64_t first = ((((bytes & even) * power) & even) * 3) >> 8 & even;
    const std::uint64_t second = ((((bytes >> 8 & even) * power) & even) * 3) & ~even;
    return subtract8(first | second, 1);
  }
};

}  // namespace quantloom::formats
