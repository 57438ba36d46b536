// Rows of a matrix that is kept in planes only, as floats: an embedding table that is also the head
// is not kept twice.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "formats/format.h"

namespace quantloom::kernels {

// As embed() (dequantize/dequantize.h) over the blocks that the planes were made of, bit for bit:
// row i of `out` [count, columns] becomes row tokens[i], times `scale`, and NaN for a token outside
// 0 .. rows - 1. Errors: cudaErrorInvalidValue for a format without planes or columns that are not
// whole blocks.
cudaError_t embed_planes(formats::Format format, const void* planes, std::int64_t rows,
                         std::int64_t columns, const std::int32_t* tokens, std::int64_t count,
                         float scale, float* out, cudaStream_t stream);

}  // namespace quantloom::kernels
