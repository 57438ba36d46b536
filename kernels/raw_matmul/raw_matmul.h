// Matrix product straight from GGUF blocks as they stand in the file: in float32 the oracle of the
// packed kernels, and what multiplies by F32, F16 and BF16, which have no planes. These have
// kernels of their own where the columns are a multiple of 8: in float32 up to 8 tokens, of few
// rows up to 24, and where the bits must not depend on their number; else on the tensor cores with
// weights and x of 16 bits or more.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "formats/format.h"

namespace quantloom::kernels {

struct RawMatmul {
  formats::Format format;
  const void* blocks;  // [rows, columns] weights
  std::int64_t rows;
  std::int64_t columns;  // whole blocks, and a multiple of 4
  const float* x;        // [tokens, columns]
  std::int64_t tokens;
  const float* bias;       // [rows] or null
  bool accumulate;         // out += instead of out =
  float* out;              // [tokens, rows]
  bool invariant = false;  // the same bits of a token whatever the number of tokens
};

// Errors: cudaErrorInvalidValue for a format that is not in the list, and for columns that are not
// whole blocks or no multiple of 4.
cudaError_t raw_matmul(const RawMatmul& arguments, cudaStream_t stream);

}  // namespace quantloom::kernels
