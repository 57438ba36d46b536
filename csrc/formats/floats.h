// F32, F16 and BF16: one value per block, no integer view.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/half.h"

namespace quantloom::formats {

struct F32 {
  using Block = float;
  static constexpr Format format = Format::f32;
  static constexpr const char* name = "F32";
  static constexpr bool quantized = false;
  static constexpr int elements = 1;
  static constexpr int bytes = 4;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static float decode(Block block) { return block; }
  QL_HOST_DEVICE static Block encode(float value) { return value; }
};

struct F16 {
  using Block = std::uint16_t;  // IEEE binary16 bits
  static constexpr Format format = Format::f16;
  static constexpr const char* name = "F16";
  static constexpr bool quantized = false;
  static constexpr int elements = 1;
  static constexpr int bytes = 2;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static float decode(Block block) { return half_to_float(block); }
  QL_HOST_DEVICE static Block encode(float value) { return float_to_half(value); }
};

struct BF16 {
  using Block = std::uint16_t;  // the upper half of an IEEE binary32
  static constexpr Format format = Format::bf16;
  static constexpr const char* name = "BF16";
  static constexpr bool quantized = false;
  static constexpr int elements = 1;
  static constexpr int bytes = 2;
  static_assert(sizeof(Block) == bytes);

  QL_HOST_DEVICE static float decode(Block block) { return bfloat16_to_float(block); }
  QL_HOST_DEVICE static Block encode(float value) { return float_to_bfloat16(value); }
};

}  // namespace quantloom::formats
