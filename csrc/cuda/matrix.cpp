#include "cuda/matrix.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "cuda/products.h"
#include "device/cuda_call.h"
#include "device/memory.h"
#include "matmul/matmul.h"

namespace quantloom::cuda {
namespace {

// A call that would take more is cut along its tokens.
constexpr std::size_t most_workspace = std::size_t{256} << 20;

// Kernels count rows, columns and tokens in 32 bits.
void require_counts(std::int64_t rows, std::int64_t columns, std::int64_t tokens = 0) {
  narrow_to_int32(rows, "rows of w");
  narrow_to_int32(columns, "columns of w");
  narrow_to_int32(tokens, "rows of x");
}

void check_repack(kernels::MatmulStatus status, const char* name, const device::Tensor& tensor) {
  if (status != kernels::MatmulStatus::done && status != kernels::MatmulStatus::cuda_error) {
    throw Error(ErrorKind::device, "this matrix cannot be repacked for the GPU", "w");
  }
  device::launch_check(name, {{"bytes", static_cast<std::int64_t>(tensor.bytes())}},
                       tensor.stream(), cudaGetLastError());
}

ops::Buffer zeroed(const device::Device& device, std::size_t bytes, device::Stream stream) {
  ops::Buffer buffer = device::allocate(device, bytes, stream, "matrix product workspace");
  device::fill_zero(buffer.get(), device, bytes, stream);
  return buffer;
}

}  // namespace

std::size_t planes_bytes(formats::Format format, std::int64_t rows, std::int64_t columns) {
  return kernels::planes_bytes(format, rows, columns);
}

void pack(const device::Tensor& blocks, const device::Tensor& planes) {
  const std::int64_t rows = blocks.shape()[0];
  require_counts(rows, blocks.shape()[1]);
  const device::CurrentDevice current(planes.device());
  check_repack(kernels::repack(blocks.format(), blocks.data(), planes.data(), 0, rows, rows,
                               blocks.shape()[1], planes.stream()),
               "repack", planes);
}

void unpack(const device::Tensor& planes, const device::Tensor& blocks) {
  const device::CurrentDevice current(blocks.device());
  check_repack(kernels::unpack(blocks.format(), planes.data(), blocks.data(), 0, blocks.shape()[0],
                               blocks.shape()[1], blocks.stream()),
               "unpack", blocks);
}

bool multiplies(const device::Device& device, formats::Format x, formats::Format out,
                std::int64_t tokens, const ops::Weight& weight, ops::Precision precision) {
  const Products products(device, precision, device::compute_stream(device));
  return products.takes({.x = x, .out = out}, weight, tokens);
}

void multiply(const device::Tensor& x, std::int64_t tokens, const ops::Weight& weight,
              ops::Precision precision, const device::Tensor& out) {
  require_counts(weight.rows, weight.columns, tokens);
  const device::Device device = out.device();
  const device::Stream stream = device::compute_stream(device);
  const device::CurrentDevice current(device);
  // The kernel before may be the one that writes the weight.
  Products products(device, precision, stream, Products::Launch::in_order);
  if (weight.planes != nullptr) {
    const std::size_t wanted = Products::workspace_bytes(weight, tokens);
    const std::size_t bytes = std::min(wanted, most_workspace);
    if (bytes > 0) products.set_workspace(zeroed(device, bytes, stream), bytes);
    if (products.in_two_parts(weight, tokens)) {
      const auto part = static_cast<std::size_t>(tokens * weight.columns) * sizeof(float);
      products.set_parts(device::allocate(device, part, stream, "activations in two parts"),
                         device::allocate(device, part, stream, "activations in two parts"));
    }
  }
  products.multiply(x.data(), {.x = x.format(), .out = out.format()}, tokens, weight, out.data());
}

}  // namespace quantloom::cuda
