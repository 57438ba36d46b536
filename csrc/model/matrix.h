// Matrix products of tensors, outside any model.
#pragma once

#include <cstdint>
#include <vector>

#include "device/tensor.h"
#include "formats/format.h"
#include "ops/operations.h"

namespace quantloom::model {

// A quantized matrix on a GPU in the planes that its kernels multiply from (kernels/matmul): the
// bits of the blocks in another order, rows padded to a multiple of 16, and 16 bytes more.
class PackedMatrix {
 public:
  // From blocks [rows, columns]. Errors: invalid_argument for anything else, or on the CPU, which
  // multiplies from blocks; out_of_memory; device.
  explicit PackedMatrix(const device::Tensor& blocks);

  // The blocks, bit for bit. Errors: out_of_memory, device.
  device::Tensor unpack() const;

  const device::Device& device() const { return planes_.device(); }
  formats::Format format() const { return format_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::size_t bytes() const { return planes_.bytes(); }
  const void* planes() const { return planes_.data(); }

 private:
  formats::Format format_ = formats::Format::f32;
  std::int64_t rows_ = 0;
  std::int64_t columns_ = 0;
  device::Tensor planes_;
};

// x [..., columns] in float32, float16 or bfloat16, times the transpose of w [rows, columns] in
// blocks or in one of these types: [..., rows] in `dtype`, one of them too, on the device of both.
// On a GPU quantized blocks are multiplied as they stand, by the slow kernels that the fast ones
// are tested against.
// Sums are of float32, and rounded to nearest even. `out`, if given, is what is written and
// returned: contiguous, writable, of that shape and type.
// Errors: invalid_argument naming the argument and what is wrong with it; out_of_memory; device.
device::Tensor multiply(const device::Tensor& x, const device::Tensor& w, ops::Precision precision,
                        device::DType dtype, const device::Tensor* out);
device::Tensor multiply(const device::Tensor& x, const PackedMatrix& w, ops::Precision precision,
                        device::DType dtype, const device::Tensor* out);

}  // namespace quantloom::model
