#include "device/tensor_kernels.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "formats/decode.h"
#include "formats/half.h"
#include "formats/types.h"

#if defined(QUANTLOOM_WITH_CUDA)
#include "dequantize/dequantize.h"
#include "device/cuda_call.h"
#include "device/strided_copy.h"
#endif

namespace quantloom::device {

namespace {

// Shape and byte strides in units of whole rows of blocks, or of elements.
struct Units {
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  std::size_t bytes = 0;
};

Units units_of(const Tensor& tensor) {
  Units units{tensor.shape(), tensor.strides(), element_bytes(tensor.dtype())};
  if (tensor.is_blocks()) {
    units.bytes = tensor.row_bytes();
    units.shape.pop_back();
    units.strides.pop_back();
  }
  return units;
}

void copy_on_host(const Units& units, const std::byte* from, std::byte* to) {
  std::vector<std::int64_t> index(units.shape.size(), 0);
  std::int64_t count = 1;
  for (const std::int64_t dimension : units.shape) count *= dimension;
  for (std::int64_t i = 0; i < count; ++i) {
    std::memcpy(to, from, units.bytes);
    to += units.bytes;
    for (std::size_t d = index.size(); d-- > 0;) {
      from += units.strides[d];
      if (++index[d] < units.shape[d]) break;
      from -= units.strides[d] * units.shape[d];
      index[d] = 0;
    }
  }
}

void convert_on_host(const Tensor& weights, const Tensor& out) {
  const formats::Format format = weights.format();
  const formats::TypeInfo* info = formats::type_info(static_cast<std::uint32_t>(format));
  const std::int64_t size = weights.size();
  const auto* source = static_cast<const std::byte*>(weights.data());
  if (out.dtype() == DType::f32) {
    if (!formats::decode_row(format, source, size, static_cast<float*>(out.data()))) {
      throw Error(ErrorKind::invalid_argument, "weights that are not whole blocks", "tensor");
    }
    return;
  }
  constexpr std::int64_t step = 4096;
  std::vector<float> values(step);
  auto* target = static_cast<std::uint16_t*>(out.data());
  for (std::int64_t i = 0; i < size; i += step) {
    const std::int64_t here = std::min(step, size - i);
    if (!formats::decode_row(format, source + i / info->elements * info->bytes, here,
                             values.data())) {
      throw Error(ErrorKind::invalid_argument, "weights that are not whole blocks", "tensor");
    }
    for (std::int64_t j = 0; j < here; ++j) {
      const float value = values[static_cast<std::size_t>(j)];
      target[i + j] = out.dtype() == DType::f16 ? formats::float_to_half(value)
                                                : formats::float_to_bfloat16(value);
    }
  }
}

}  // namespace

void copy_strided(const Tensor& from, void* to) {
  const Units units = units_of(from);
  if (from.size() == 0) return;
  if (from.device().type == DeviceType::cpu) {
    copy_on_host(units, static_cast<const std::byte*>(from.data()), static_cast<std::byte*>(to));
    return;
  }
  require_usable(from.device());
#if defined(QUANTLOOM_WITH_CUDA)
  kernels::StridedLayout layout;
  const int extra = from.is_blocks() ? 1 : 0;
  layout.dimensions = static_cast<int>(units.shape.size()) + extra;
  if (layout.dimensions > kernels::max_copy_dimensions) {
    throw Error(ErrorKind::invalid_argument,
                "a strided tensor of more than 8 dimensions cannot be copied on a GPU", "tensor");
  }
  for (std::size_t d = 0; d < units.shape.size(); ++d) {
    layout.shape[d] = units.shape[d];
    layout.strides[d] = units.strides[d];
  }
  int element = static_cast<int>(units.bytes);
  if (from.is_blocks()) {  // rows of blocks, 2 bytes at a time where all of them lie so
    std::uint64_t places = units.bytes | reinterpret_cast<std::uintptr_t>(from.data());
    for (const std::int64_t stride : units.strides) places |= static_cast<std::uint64_t>(stride);
    element = places % 2 == 0 ? 2 : 1;
    layout.shape[layout.dimensions - 1] = static_cast<std::int64_t>(units.bytes) / element;
    layout.strides[layout.dimensions - 1] = element;
  }
  const CurrentDevice current(from.device());
  launch_check("strided_copy", {{"elements", from.size()}, {"element_bytes", element}},
               from.stream(),
               kernels::strided_copy(from.data(), layout, element, to, from.stream()));
#endif
}

void convert_weights(const Tensor& weights, const Tensor& out) {
  if (weights.size() == 0) return;
  if (weights.device().type == DeviceType::cpu) {
    convert_on_host(weights, out);
    return;
  }
  require_usable(weights.device());
#if defined(QUANTLOOM_WITH_CUDA)
  const CurrentDevice current(weights.device());
  launch_check(
      "dequantize",
      {{"format", static_cast<std::int64_t>(weights.format())}, {"elements", weights.size()}},
      out.stream(),
      kernels::dequantize(weights.format(), weights.data(), weights.size(), out.format(),
                          out.data(), out.stream()));
#endif
}

}  // namespace quantloom::device
