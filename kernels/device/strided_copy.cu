#include "device/strided_copy.h"

namespace quantloom::kernels {

namespace {

template <typename Element>
__global__ void copy_elements(const char* from, StridedLayout layout, std::int64_t count,
                              Element* to) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    std::int64_t rest = i;
    std::int64_t offset = 0;
    for (int d = layout.dimensions - 1; d >= 0; --d) {
      const std::int64_t next = rest / layout.shape[d];
      offset += (rest - next * layout.shape[d]) * layout.strides[d];
      rest = next;
    }
    to[i] = *reinterpret_cast<const Element*>(from + offset);
  }
}

template <typename Element>
cudaError_t launch(const void* from, const StridedLayout& layout, std::int64_t count, void* to,
                   cudaStream_t stream) {
  constexpr int threads = 256;
  const std::int64_t wanted = (count + threads - 1) / threads;
  const int blocks = static_cast<int>(wanted < 8192 ? wanted : 8192);
  copy_elements<Element><<<blocks, threads, 0, stream>>>(static_cast<const char*>(from), layout,
                                                         count, static_cast<Element*>(to));
  return cudaGetLastError();
}

}  // namespace

cudaError_t strided_copy(const void* from, const StridedLayout& layout, int element_bytes, void* to,
                         cudaStream_t stream) {
  if (layout.dimensions < 0 || layout.dimensions > max_copy_dimensions)
    return cudaErrorInvalidValue;
  std::int64_t count = 1;
  std::uint64_t places =
      reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to);
  for (int d = 0; d < layout.dimensions; ++d) {
    count *= layout.shape[d];
    if (layout.shape[d] > 1) places |= static_cast<std::uint64_t>(layout.strides[d]);
  }
  if (count == 0) return cudaSuccess;
  if (element_bytes < 1 || places % static_cast<std::uint64_t>(element_bytes) != 0) {
    return cudaErrorInvalidValue;
  }
  switch (element_bytes) {
    case 1:
      return launch<std::uint8_t>(from, layout, count, to, stream);
    case 2:
      return launch<std::uint16_t>(from, layout, count, to, stream);
    case 4:
      return launch<std::uint32_t>(from, layout, count, to, stream);
    case 8:
      return launch<std::uint64_t>(from, layout, count, to, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace quantloom::kernels
