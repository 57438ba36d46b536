// Sizes of the GPU layout of a quantized matrix (planes.h).
#pragma once

namespace quantloom::kernels {

constexpr int strip_rows = 16;
constexpr int piece_columns = 256;
constexpr int piece_groups = 8;  // of 32 columns
constexpr int planes_trailer =
    16;  // bytes behind the last strip: the largest absolute weight as a float

}  // namespace quantloom::kernels
