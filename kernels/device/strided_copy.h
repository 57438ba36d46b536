// Copies an array of any strides into a contiguous one on the same device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace quantloom::kernels {

inline constexpr int max_copy_dimensions = 8;

struct StridedLayout {
  int dimensions = 0;
  std::int64_t shape[max_copy_dimensions] = {};
  std::int64_t strides[max_copy_dimensions] = {};  // bytes; may be negative or 0
};

// from: the address of element [0, ..., 0]; to: C order. element_bytes is 1, 2, 4 or 8, and every
// address a multiple of it. cudaErrorInvalidValue otherwise.
cudaError_t strided_copy(const void* from, const StridedLayout& layout, int element_bytes, void* to,
                         cudaStream_t stream);

}  // namespace quantloom::kernels
