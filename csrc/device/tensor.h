// An array on the CPU or a GPU: plain numbers of any strides, or quantized rows in their GGUF
// blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "device/memory.h"
#include "device/runtime.h"
#include "formats/format.h"

namespace quantloom::device {

enum class DType {
  f32,
  f16,
  bf16,
  f64,
  i8,
  i16,
  i32,
  i64,
  u8,
  u16,
  u32,
  u64,
  boolean,
  blocks,  // see Tensor::format
};

// Bytes of one element; 0 for blocks.
std::size_t element_bytes(DType dtype);

// NumPy's name ("float32", "bfloat16", "bool"); "blocks" for blocks.
const char* dtype_name(DType dtype);

// As Python writes it: "(2, 3)", "(2,)", "()".
std::string shape_text(const std::vector<std::int64_t>& shape);

// Errors: invalid_argument naming the types there are.
DType parse_dtype(std::string_view name);
// The GGUF format of float32, float16 and bfloat16. Errors: invalid_argument for the rest.
formats::Format format_of(DType dtype);

// Memory that tensors share. `stream` is where work on it is ordered; null on the CPU.
struct Storage {
  Device device;
  std::shared_ptr<void> memory;  // its deleter also lets go of whoever lent it
  std::size_t bytes = 0;
  Stream stream = nullptr;
  bool read_only = false;
};

class Tensor {
 public:
  // Contiguous, uninitialized, numbers. Errors: out_of_memory, device, invalid_argument (a negative
  // or overflowing shape).
  static Tensor empty(DType dtype, std::vector<std::int64_t> shape, const Device& device);

  // A view of `storage` whose element [0, ..., 0] lies `offset` bytes in. Strides are in bytes.
  // Errors: invalid_argument when the view leaves the storage or is not aligned to its elements.
  static Tensor view(std::shared_ptr<Storage> storage, DType dtype, std::vector<std::int64_t> shape,
                     std::vector<std::int64_t> strides, std::size_t offset);

  // Contiguous rows of blocks: the last dimension of `shape` counts weights and is whole blocks.
  // Errors: invalid_argument, also when `storage` holds another number of bytes than the shape
  // wants.
  static Tensor blocks(std::shared_ptr<Storage> storage, formats::Format format,
                       std::vector<std::int64_t> shape);

  const Device& device() const { return storage_->device; }
  DType dtype() const { return dtype_; }
  bool is_blocks() const { return dtype_ == DType::blocks; }
  // The GGUF format: of blocks, and of float32, float16 and bfloat16. Errors: invalid_argument for
  // the rest.
  formats::Format format() const;
  const std::vector<std::int64_t>& shape() const { return shape_; }
  // Bytes from one index to the next. Of blocks the last one is 0: weights have no address of their
  // own.
  const std::vector<std::int64_t>& strides() const { return strides_; }
  std::int64_t size() const;      // elements
  std::size_t bytes() const;      // of the elements, without gaps
  std::size_t row_bytes() const;  // of the last dimension
  bool is_contiguous() const;
  bool is_read_only() const { return storage_->read_only; }
  void* data() const;
  Stream stream() const { return storage_->stream; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  // The same memory. Errors: invalid_argument when the sizes differ, the tensor is not contiguous,
  // or blocks would be cut.
  Tensor reshape(std::vector<std::int64_t> shape) const;
  // Indices first, first + step, ... of the first dimension, `count` of them. Errors:
  // invalid_argument.
  Tensor slice(std::int64_t first, std::int64_t count, std::int64_t step = 1) const;
  // One index of the first dimension, which goes away. Errors: invalid_argument.
  Tensor row(std::int64_t index) const;
  // Blocks as the bytes they are: uint8, the last dimension in bytes. The same memory.
  Tensor as_bytes() const;

  // A copy in C order, or this tensor where it has that already.
  Tensor contiguous() const;
  // On `device`; this tensor where it lies there already. Copies between CPU and GPU wait until the
  // data has arrived.
  Tensor to(const Device& device) const;
  Tensor clone() const;

  // Values as `dtype` (f32, f16 or bf16) on the same device: of blocks, and of tensors in these
  // three types. `out`, if given, has the shape and type, is contiguous, writable, on the same
  // device, and is what is returned. Errors: invalid_argument, out_of_memory, device.
  Tensor dequantize(DType dtype, const Tensor* out = nullptr) const;

 private:
  std::shared_ptr<Storage> storage_;
  DType dtype_ = DType::f32;
  formats::Format format_ = formats::Format::f32;
  std::vector<std::int64_t> shape_;
  std::vector<std::int64_t> strides_;
  std::size_t offset_ = 0;
};

// Storage of its own on `device`, uninitialized.
std::shared_ptr<Storage> make_storage(const Device& device, std::size_t bytes, const char* what);

// Storage that somebody else owns; `owner` keeps it alive.
std::shared_ptr<Storage> wrap_storage(const Device& device, void* memory, std::size_t bytes,
                                      std::shared_ptr<void> owner, bool read_only);

}  // namespace quantloom::device
