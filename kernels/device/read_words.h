// Reads memory and keeps nothing of it but a checksum: what the rate of reading is measured with.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace quantloom::kernels {

// *sum ^= every 32-bit word of `from`, which lies on 16 bytes; `bytes` is a multiple of 16.
cudaError_t read_words(const void* from, std::size_t bytes, std::uint32_t* sum,
                       cudaStream_t stream);

}  // namespace quantloom::kernels
