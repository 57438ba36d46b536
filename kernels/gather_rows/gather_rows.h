// Single rows of a matrix that is kept in planes only, as the GGUF blocks they were: an embedding
// table that is also the head is not kept twice.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "formats/format.h"

namespace quantloom::kernels {

// Row i of `blocks` becomes row tokens[i] of the matrix, and row_numbers[i] becomes i; for a token
// outside 0 .. rows - 1 row_numbers[i] becomes -1 and the row is left as it is. So embed() over
// `blocks` with `row_numbers` for tokens gives what embed() over the table would. Errors:
// cudaErrorInvalidValue for a format without planes or columns that are not whole blocks.
cudaError_t gather_rows(formats::Format format, const void* planes, std::int64_t rows,
                        std::int64_t columns, const std::int32_t* tokens, std::int64_t count,
                        void* blocks, std::int32_t* row_numbers, cudaStream_t stream);

}  // namespace quantloom::kernels
