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
    const bool last = k >= 30;  // one word of four bytes holds its eight weights, as two digits
    const int first = k < 20 ? 8 * (k % 4) : last ? 48 : 32 + 8 * (k % 2);
    const int digit = k < 20 ? k / 4 : last ? 2 * (k - 30) : (k - 20) / 2;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&block) + first;
    const std::uint64_t low = trits(load4(bytes), digit);
    const std::uint64_t high = trits(load4(bytes + (last ? 0 : 4)), last ? digit + 1 : digit);
    unpack8(subtract8(low | high << 32, 1), q);
  }

 private:
  // Digit n of each of four bytes, (byte * 3^n mod 256) * 3 / 256. Even and odd bytes take turns in
  // 16-bit lanes, which hold 255 * 81.
  QL_HOST_DEVICE static std::uint32_t trits(std::uint32_t bytes, int digit) {
    constexpr std::uint32_t even = 0x00ff00ffu;
    const std::uint32_t power = digit == 4 ? 81u : (0x1b090301u >> (8 * digit)) & 255u;
    const std::uint32_t first = ((((bytes & even) * power) & even) * 3u) >> 8 & even;
    const std::uint32_t second = ((((bytes >> 8 & even) * power) & even) * 3u) & ~even;
    return first | second;
  }
};

}  // namespace quantloom::formats
