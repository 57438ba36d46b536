// From blocks to F32, F16 or BF16 on the GPU, and rows of a quantized embedding table by token.
// Bit for bit the host's formats::decode_row, rounded to nearest even for the 16-bit outputs; only
// the payload of a NaN may differ.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "formats/format.h"

namespace quantloom::kernels {

// out[0 .. elements - 1] as `out_format` (f32, f16, bf16) from the blocks of `format`, in their
// file layout. `elements` is a multiple of the format's elements per block; `blocks` is aligned to
// 2 bytes (MXFP4 and NVFP4: 1; F32: 4); `out` to its element. 16-byte aligned pointers run at full
// speed. Sizes above 2^32 are fine. Returns cudaErrorInvalidValue for anything else, else the
// launch's status. Allocates and waits for nothing.
cudaError_t dequantize(formats::Format format, const void* blocks, std::int64_t elements,
                       formats::Format out_format, void* out, cudaStream_t stream);

// out[i, :] = scale * row tokens[i], float32 [count, columns]; table [rows, columns] in blocks of
// `format`, any served one. A token outside 0 .. rows - 1 gives a row of NaN. Returns as
// dequantize().
cudaError_t embed(formats::Format format, const void* table, std::int64_t rows,
                  std::int64_t columns, const std::int32_t* tokens, std::int64_t count, float scale,
                  float* out, cudaStream_t stream);

}  // namespace quantloom::kernels
