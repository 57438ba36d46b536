#include "cuda/place.h"

#include <vector>

#include "base/error.h"
#include "device/cuda_call.h"
#include "device/memory.h"
#include "device/upload.h"
#include "formats/types.h"
#include "matmul/geometry.h"
#include "matmul/matmul.h"

namespace quantloom::cuda {
namespace {

constexpr std::uint64_t alignment = 256;

std::uint64_t row_bytes(const ops::Weight& weight) {
  const formats::TypeInfo* type = formats::type_info(static_cast<std::uint32_t>(weight.format));
  return static_cast<std::uint64_t>(weight.columns / type->elements) * type->bytes;
}

std::uint64_t raw_bytes(const ops::Weight& weight) {
  return static_cast<std::uint64_t>(weight.rows) * row_bytes(weight);
}

// 0 where the weight stays in its raw blocks.
std::uint64_t packed_bytes(const ops::Weight& weight) {
  return weight.multiplied ? kernels::planes_bytes(weight.format, weight.rows, weight.columns) : 0;
}

device::Transfer raw_transfer(ops::Weight& weight, std::byte* target) {
  const std::span source(static_cast<const std::byte*>(weight.blocks), raw_bytes(weight));
  weight.blocks = target;
  return {.name = weight.name,
          .source = source,
          .file = weight.file,
          .file_offset = weight.file_offset,
          .destination = target,
          .consume = {}};
}

device::Transfer packed_transfer(const device::Device& device, ops::Weight& weight,
                                 std::byte* target) {
  const std::span source(static_cast<const std::byte*>(weight.blocks), raw_bytes(weight));
  weight.blocks = nullptr;
  weight.planes = target;
  const std::uint64_t bytes_of_row = row_bytes(weight);
  const auto repack = [device, weight, target, bytes_of_row](const device::Piece& piece) {
    const device::CurrentDevice current(device);
    const auto first = static_cast<std::int64_t>(piece.first / bytes_of_row);
    const auto rows = static_cast<std::int64_t>(piece.bytes / bytes_of_row);
    const kernels::MatmulStatus status =
        kernels::repack(weight.format, piece.data, target, first, rows, weight.rows, weight.columns,
                        piece.stream, true);
    if (status != kernels::MatmulStatus::done && status != kernels::MatmulStatus::cuda_error) {
      throw Error(ErrorKind::device, "tensor '" + weight.name + "' cannot be repacked for the GPU",
                  weight.name);
    }
    device::launch_check("repack", {{"rows", rows}, {"columns", weight.columns}}, piece.stream,
                         cudaGetLastError());
  };
  return {.name = weight.name,
          .source = source,
          .file = weight.file,
          .file_offset = weight.file_offset,
          .unit = kernels::strip_rows * bytes_of_row,
          .consume = repack};
}

}  // namespace

std::uint64_t placed_bytes(const ops::Weight& weight) {
  const std::uint64_t packed = packed_bytes(weight);
  const std::uint64_t bytes = packed != 0 ? packed : raw_bytes(weight);
  return (bytes + alignment - 1) / alignment * alignment;
}

ops::Buffer place(const device::Device& device, device::Stream stream,
                  std::span<ops::Weight* const> weights, const ops::Progress& progress) {
  std::uint64_t total = 0;
  for (const ops::Weight* weight : weights) total += placed_bytes(*weight);
  ops::Buffer buffer = device::allocate(device, total, stream, "the weights");
  auto* next = static_cast<std::byte*>(buffer.get());
  std::vector<device::Transfer> transfers;
  transfers.reserve(weights.size());
  for (ops::Weight* weight : weights) {
    const std::uint64_t bytes = placed_bytes(*weight);
    const std::uint64_t packed = packed_bytes(*weight);
    if (packed != 0) {
      // Before the first piece, each of which may hold the largest weight.
      constexpr std::size_t trailer = kernels::planes_trailer;
      device::fill_zero(next + packed - trailer, device, trailer, stream);
      transfers.push_back(packed_transfer(device, *weight, next));
    } else {
      transfers.push_back(raw_transfer(*weight, next));
    }
    next += bytes;
  }
  device::synchronize(device, stream);
  device::UploadOptions options;
  if (progress) {
    options.progress = [&progress](std::uint64_t done, std::uint64_t of) {
      progress(done, of);
      return true;
    };
  }
  device::upload(device, transfers, options);
  return buffer;
}

}  // namespace quantloom::cuda
