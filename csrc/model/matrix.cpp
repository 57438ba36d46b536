#include "model/matrix.h"

#include <string>
#include <utility>

#include "base/error.h"
#include "device/memory.h"
#include "device/runtime.h"
#include "formats/types.h"
#include "model/backend.h"
#if defined(QUANTLOOM_WITH_CUDA)
#include "cuda/matrix.h"
#endif

namespace quantloom::model {
namespace {

using device::DeviceType;
using device::DType;
using device::shape_text;
using device::Tensor;

// The GPU's kernels load and store 16 bytes at a time.
constexpr std::uintptr_t alignment = 16;

[[noreturn]] void invalid(const std::string& message, const char* subject) {
  throw Error(ErrorKind::invalid_argument, message, subject);
}

std::string kind(const Tensor& tensor) {
  if (!tensor.is_blocks()) return device::dtype_name(tensor.dtype());
  return formats::type_info(static_cast<std::uint32_t>(tensor.format()))->name;
}

bool is_float(const Tensor& tensor) {
  return tensor.dtype() == DType::f32 || tensor.dtype() == DType::f16 ||
         tensor.dtype() == DType::bf16;
}

bool overlap(const Tensor& out, const void* memory, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  const auto out_begin = reinterpret_cast<std::uintptr_t>(out.data());
  return begin < out_begin + out.bytes() && out_begin < begin + bytes;
}

bool aligned(const Tensor& tensor) {
  return tensor.device().type == DeviceType::cpu ||
         reinterpret_cast<std::uintptr_t>(tensor.data()) % alignment == 0;
}

// A matrix on a device, in either layout.
struct Matrix {
  device::Device device;
  ops::Weight weight;
  std::size_t bytes = 0;  // of its blocks or planes
};

void check_x(const Tensor& x, const Matrix& w) {
  if (x.is_blocks()) invalid("x is " + kind(x) + "; dequantize it first", "x");
  if (!is_float(x)) {
    invalid("x is " + kind(x) + "; it must be float32, float16 or bfloat16", "x");
  }
  if (x.shape().empty()) invalid("x has no dimensions; it must be [..., columns of w]", "x");
  if (x.shape().back() != w.weight.columns) {
    invalid("x is " + shape_text(x.shape()) + " and w is " +
                shape_text({w.weight.rows, w.weight.columns}) + ": the last dimensions differ",
            "x");
  }
  if (!(x.device() == w.device)) {
    invalid("x is on " + to_string(x.device()) + " and w on " + to_string(w.device) +
                "; move one with .to()",
            "x");
  }
}

void check_out(const Tensor& out, const std::vector<std::int64_t>& shape, DType dtype,
               const Tensor& x, const Matrix& w) {
  if (out.dtype() != dtype || out.shape() != shape) {
    invalid("out is " + kind(out) + " " + shape_text(out.shape()) + "; it must be " +
                device::dtype_name(dtype) + " " + shape_text(shape),
            "out");
  }
  if (!(out.device() == x.device())) {
    invalid("out is on " + to_string(out.device()) + " and x on " + to_string(x.device()), "out");
  }
  if (!out.is_contiguous()) invalid("out must be contiguous", "out");
  if (out.is_read_only()) invalid("out is read-only", "out");
  const void* weights = w.weight.planes != nullptr ? w.weight.planes : w.weight.blocks;
  if (overlap(out, weights, w.bytes)) invalid("out shares memory with w", "out");
  if (x.storage() == out.storage() || overlap(out, x.data(), x.bytes())) {
    invalid("out shares memory with x", "out");
  }
}

// Whether the device's kernels read x and write out as they are; float32 they always do.
bool runs(const Tensor& x, DType out, [[maybe_unused]] std::int64_t tokens,
          [[maybe_unused]] const Matrix& w, [[maybe_unused]] ops::Precision precision) {
  if (x.dtype() == DType::f32 && out == DType::f32) return true;
#if defined(QUANTLOOM_WITH_CUDA)
  if (w.device.type == DeviceType::cuda) {
    return cuda::multiplies(w.device, x.format(), device::format_of(out), tokens, w.weight,
                            precision);
  }
#endif
  return false;
}

// Contiguous, and where kernels can load it; itself where it is that already.
Tensor loadable(const Tensor& x) {
  const Tensor whole = x.contiguous();
  return aligned(whole) ? whole : whole.clone();
}

void run(const Tensor& x, std::int64_t tokens, const Matrix& w, ops::Precision precision,
         const Tensor& out) {
  if (w.device.type == DeviceType::cpu) {
    const auto operations = make_operations(w.device, precision);
    operations->project(
        static_cast<const float*>(x.data()), tokens,
        {.weight = &w.weight, .bias = nullptr, .out = static_cast<float*>(out.data())});
    return;
  }
#if defined(QUANTLOOM_WITH_CUDA)
  cuda::multiply(x, tokens, w.weight, precision, out);
#endif
}

Tensor multiply(const Tensor& x, const Matrix& w, ops::Precision precision, DType dtype,
                const Tensor* out) {
  device::require_usable(w.device);
  check_x(x, w);
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) {
    invalid(std::string("dtype is ") + device::dtype_name(dtype) +
                "; it must be float32, float16 or bfloat16",
            "dtype");
  }
  std::vector<std::int64_t> shape = x.shape();
  shape.back() = w.weight.rows;
  if (out != nullptr) check_out(*out, shape, dtype, x, w);
  const Tensor result = out != nullptr ? *out : Tensor::empty(dtype, shape, w.device);
  if (result.size() == 0) return result;
  const std::int64_t tokens = result.size() / w.weight.rows;
  // Each type by itself: one that the kernels do not take is converted.
  const Tensor input =
      runs(x, DType::f32, tokens, w, precision) ? loadable(x) : x.dequantize(DType::f32);
  const bool writes = runs(input, dtype, tokens, w, precision);
  if (writes && aligned(result)) {
    run(input, tokens, w, precision, result);
    return result;
  }
  const Tensor made = Tensor::empty(writes ? dtype : DType::f32, shape, w.device);
  run(input, tokens, w, precision, made);
  if (writes) {
    device::copy(result.data(), w.device, made.data(), w.device, result.bytes(), made.stream());
    return result;
  }
  return made.dequantize(dtype, &result);
}

}  // namespace

PackedMatrix::PackedMatrix(const Tensor& blocks) {
  if (!blocks.is_blocks()) {
    invalid("the tensor is " + kind(blocks) + ", which has no planes", "tensor");
  }
  if (blocks.device().type == DeviceType::cpu) {
    invalid("the tensor is on the CPU, which multiplies from blocks; move it with .to() first",
            "tensor");
  }
  if (blocks.shape().size() != 2 || blocks.size() == 0) {
    invalid(
        "the tensor is " + shape_text(blocks.shape()) + "; planes are of a matrix (rows, columns)",
        "tensor");
  }
  device::require_usable(blocks.device());
  format_ = blocks.format();
  rows_ = blocks.shape()[0];
  columns_ = blocks.shape()[1];
#if defined(QUANTLOOM_WITH_CUDA)
  const std::size_t bytes = cuda::planes_bytes(format_, rows_, columns_);
  planes_ = Tensor::empty(DType::u8, {static_cast<std::int64_t>(bytes)}, blocks.device());
  cuda::pack(blocks.contiguous(), planes_);
#endif
}

Tensor PackedMatrix::unpack() const {
  const formats::TypeInfo* type = formats::type_info(static_cast<std::uint32_t>(format_));
  const std::size_t bytes = static_cast<std::size_t>(rows_) *
                            static_cast<std::size_t>(columns_ / type->elements) * type->bytes;
  const Tensor blocks =
      Tensor::blocks(device::make_storage(device(), bytes, "a tensor"), format_, {rows_, columns_});
#if defined(QUANTLOOM_WITH_CUDA)
  cuda::unpack(planes_, blocks);
#endif
  return blocks;
}

Tensor multiply(const Tensor& x, const Tensor& w, ops::Precision precision, DType dtype,
                const Tensor* out) {
  if (!w.is_blocks() && !is_float(w)) {
    invalid("w is " + kind(w) + "; it must be in quantized blocks, float32, float16 or bfloat16",
            "w");
  }
  if (w.shape().size() != 2) {
    invalid("w is " + shape_text(w.shape()) + "; it must be a matrix (rows, columns)", "w");
  }
  if (w.shape()[1] == 0) invalid("w has no columns", "w");
  if (w.device().type == DeviceType::cuda && w.shape()[1] % 4 != 0) {
    invalid("w has " + std::to_string(w.shape()[1]) +
                " columns; float matrices on a GPU are multiplied in fours",
            "w");
  }
  const Tensor whole = w.contiguous();
  const Tensor source = aligned(whole) ? whole : whole.clone();
  return multiply(x,
                  Matrix{.device = w.device(),
                         .weight = {.name = "w",
                                    .format = w.format(),
                                    .rows = w.shape()[0],
                                    .columns = w.shape()[1],
                                    .blocks = source.data()},
                         .bytes = source.bytes()},
                  precision, dtype, out);
}

Tensor multiply(const Tensor& x, const PackedMatrix& w, ops::Precision precision, DType dtype,
                const Tensor* out) {
  return multiply(x,
                  Matrix{.device = w.device(),
                         .weight = {.name = "w",
                                    .format = w.format(),
                                    .rows = w.rows(),
                                    .columns = w.columns(),
                                    .planes = w.planes()},
                         .bytes = w.bytes()},
                  precision, dtype, out);
}

}  // namespace quantloom::model
