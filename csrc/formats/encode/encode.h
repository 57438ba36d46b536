// From float32 to blocks. The search minimizes the plain squared error of the weights.
#pragma once

#include <cstdint>

#include "formats/format.h"

namespace quantloom::formats {

enum class EncodeStatus {
  done,
  not_encodable,  // the format has a decoder only, or is not in the list
  partial_block,  // the row is not a whole number of blocks
  not_finite,     // NaN or infinity at `position`
  out_of_range,   // the value at `position` is too large for the format
};

struct EncodeResult {
  EncodeStatus status;
  std::int64_t position;  // element of the row, where the status names one; else 0
};

// F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
bool encodable(Format format);

// Writes the blocks of values[0 .. elements - 1]. On any status but `done` the blocks before the
// one that holds `position` are written and the rest is untouched.
[[nodiscard]] EncodeResult encode_row(Format format, const float* values, std::int64_t elements,
                                      void* blocks);

}  // namespace quantloom::formats
