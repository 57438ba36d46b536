#include "device/tensor.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "device/tensor_kernels.h"
#include "device/upload.h"
#include "formats/types.h"

namespace quantloom::device {

namespace {

// From here on pinned buffers pay; a copy from pageable memory runs at a fraction of the link's
// speed.
constexpr std::size_t pageable_limit = std::size_t{64} << 20;

struct DTypeRow {
  DType dtype;
  const char* name;
  std::size_t bytes;
};

constexpr std::array<DTypeRow, 14> dtype_table = {{{DType::f32, "float32", 4},
                                                   {DType::f16, "float16", 2},
                                                   {DType::bf16, "bfloat16", 2},
                                                   {DType::f64, "float64", 8},
                                                   {DType::i8, "int8", 1},
                                                   {DType::i16, "int16", 2},
                                                   {DType::i32, "int32", 4},
                                                   {DType::i64, "int64", 8},
                                                   {DType::u8, "uint8", 1},
                                                   {DType::u16, "uint16", 2},
                                                   {DType::u32, "uint32", 4},
                                                   {DType::u64, "uint64", 8},
                                                   {DType::boolean, "bool", 1},
                                                   {DType::blocks, "blocks", 0}}};

const DTypeRow& row_of(DType dtype) { return dtype_table[static_cast<std::size_t>(dtype)]; }

[[noreturn]] void invalid(const std::string& message, const std::string& subject) {
  throw Error(ErrorKind::invalid_argument, message, subject);
}

// Elements of a shape; errors where a dimension is negative or the bytes of the whole pass 2^63
// - 1.
std::int64_t checked_size(const std::vector<std::int64_t>& shape, std::size_t bytes) {
  constexpr std::uint64_t limit = std::numeric_limits<std::int64_t>::max();
  std::uint64_t size = std::max<std::size_t>(bytes, 1);
  bool empty = false;
  for (const std::int64_t dimension : shape) {
    if (dimension < 0) invalid("shape " + shape_text(shape) + " has a negative dimension", "shape");
    if (dimension == 0) empty = true;
    const auto product =
        try_multiply(size, static_cast<std::uint64_t>(std::max<std::int64_t>(dimension, 1)));
    if (!product || *product > limit) {
      invalid("shape " + shape_text(shape) + " is larger than any memory", "shape");
    }
    size = *product;
  }
  return empty ? 0 : static_cast<std::int64_t>(size / std::max<std::size_t>(bytes, 1));
}

std::vector<std::int64_t> contiguous_strides(const std::vector<std::int64_t>& shape,
                                             std::int64_t last) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t stride = last;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<std::int64_t>(shape[i], 1);
  }
  return strides;
}

std::size_t block_row_bytes(formats::Format format, std::int64_t columns) {
  const formats::TypeInfo* info = formats::type_info(static_cast<std::uint32_t>(format));
  return static_cast<std::size_t>(columns) / info->elements * info->bytes;
}

std::vector<std::int64_t> block_strides(formats::Format format,
                                        const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 0);
  auto stride = static_cast<std::int64_t>(block_row_bytes(format, shape.back()));
  for (std::size_t i = shape.size() - 1; i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<std::int64_t>(shape[i], 1);
  }
  return strides;
}

}  // namespace

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::size_t element_bytes(DType dtype) { return row_of(dtype).bytes; }
const char* dtype_name(DType dtype) { return row_of(dtype).name; }

DType parse_dtype(std::string_view name) {
  std::string known;
  for (const DTypeRow& row : dtype_table) {
    if (row.dtype == DType::blocks) continue;
    if (name == row.name) return row.dtype;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  invalid("dtype '" + std::string(name) + "' is not one of " + known, "dtype");
}

std::shared_ptr<Storage> make_storage(const Device& device, std::size_t bytes, const char* what) {
  auto storage = std::make_shared<Storage>();
  storage->device = device;
  storage->stream = compute_stream(device);
  storage->memory = allocate(device, bytes, storage->stream, what);
  storage->bytes = bytes;
  return storage;
}

std::shared_ptr<Storage> wrap_storage(const Device& device, void* memory, std::size_t bytes,
                                      std::shared_ptr<void> owner, bool read_only) {
  auto storage = std::make_shared<Storage>();
  storage->device = device;
  storage->stream = compute_stream(device);
  storage->memory = std::shared_ptr<void>(std::move(owner), memory);
  storage->bytes = bytes;
  storage->read_only = read_only;
  return storage;
}

Tensor Tensor::empty(DType dtype, std::vector<std::int64_t> shape, const Device& device) {
  const std::size_t element = element_bytes(dtype);
  if (element == 0) invalid("blocks need a format: use Tensor.from_blocks", "dtype");
  const std::int64_t size = checked_size(shape, element);
  Tensor tensor;
  tensor.storage_ = make_storage(device, static_cast<std::size_t>(size) * element, "a tensor");
  tensor.dtype_ = dtype;
  tensor.strides_ = contiguous_strides(shape, static_cast<std::int64_t>(element));
  tensor.shape_ = std::move(shape);
  return tensor;
}

Tensor Tensor::view(std::shared_ptr<Storage> storage, DType dtype, std::vector<std::int64_t> shape,
                    std::vector<std::int64_t> strides, std::size_t offset) {
  const auto element = static_cast<std::int64_t>(element_bytes(dtype));
  if (element == 0 || shape.size() != strides.size()) {
    invalid("a view needs a number type and one stride for each dimension", "strides");
  }
  const std::int64_t size = checked_size(shape, static_cast<std::size_t>(element));
  if (size > 0) {
    __int128 first = offset;
    __int128 last = first + element;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const __int128 reach = static_cast<__int128>(shape[i] - 1) * strides[i];
      (reach < 0 ? first : last) += reach;
    }
    if (first < 0 || last > static_cast<__int128>(storage->bytes)) {
      invalid("shape " + shape_text(shape) + " with strides " + shape_text(strides) +
                  " leaves its memory of " + std::to_string(storage->bytes) + " bytes",
              "strides");
    }
    const auto address = reinterpret_cast<std::uintptr_t>(storage->memory.get()) + offset;
    bool aligned = address % static_cast<std::size_t>(element) == 0;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      aligned = aligned && (shape[i] == 1 || strides[i] % element == 0);
    }
    if (!aligned) {
      invalid(
          std::string("memory of type ") + dtype_name(dtype) + " is not aligned to its elements",
          "strides");
    }
  }
  Tensor tensor;
  tensor.storage_ = std::move(storage);
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  tensor.strides_ = std::move(strides);
  tensor.offset_ = offset;
  return tensor;
}

Tensor Tensor::blocks(std::shared_ptr<Storage> storage, formats::Format format,
                      std::vector<std::int64_t> shape) {
  const formats::TypeInfo* info = formats::type_info(static_cast<std::uint32_t>(format));
  if (info == nullptr || info->state != formats::TypeState::served) {
    invalid("format " + std::to_string(static_cast<std::uint32_t>(format)) + " is not served",
            "format");
  }
  if (shape.empty()) invalid("blocks need at least one dimension", "shape");
  if (shape.back() < 0 || shape.back() % info->elements != 0) {
    throw Error(ErrorKind::invalid_argument,
                "the last dimension of shape " + shape_text(shape) + " is not a multiple of the " +
                    std::to_string(info->elements) + " weights of a " + info->name + " block",
                "shape", std::nullopt, info->elements);
  }
  checked_size(shape, 2);  // no format takes more a weight, but F32, whose blocks are its weights
  std::vector<std::int64_t> in_blocks = shape;
  in_blocks.back() /= info->elements;
  const std::uint64_t bytes =
      static_cast<std::uint64_t>(checked_size(in_blocks, info->bytes)) * info->bytes;
  if (bytes != storage->bytes) {
    throw Error(ErrorKind::invalid_argument,
                "shape " + shape_text(shape) + " of " + info->name + " takes " +
                    std::to_string(bytes) + " bytes and " + std::to_string(storage->bytes) +
                    " were given",
                "shape", std::nullopt, bytes);
  }
  if (info->elements == 1) {
    const DType dtype = format == formats::Format::f32   ? DType::f32
                        : format == formats::Format::f16 ? DType::f16
                                                         : DType::bf16;
    auto strides = contiguous_strides(shape, static_cast<std::int64_t>(info->bytes));
    return view(std::move(storage), dtype, std::move(shape), std::move(strides), 0);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(storage->memory.get());
  if (address % formats::block_alignment(*info) != 0 && bytes > 0) {
    invalid(std::string("blocks of ") + info->name + " must lie at an even address", "data");
  }
  Tensor tensor;
  tensor.storage_ = std::move(storage);
  tensor.dtype_ = DType::blocks;
  tensor.format_ = format;
  tensor.strides_ = block_strides(format, shape);
  tensor.shape_ = std::move(shape);
  return tensor;
}

formats::Format format_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return formats::Format::f32;
    case DType::f16:
      return formats::Format::f16;
    case DType::bf16:
      return formats::Format::bf16;
    default:
      invalid(std::string("no GGUF weights have the type ") + dtype_name(dtype), "dtype");
  }
}

formats::Format Tensor::format() const { return is_blocks() ? format_ : format_of(dtype_); }

std::int64_t Tensor::size() const {
  std::int64_t size = 1;
  for (const std::int64_t dimension : shape_) size *= dimension;
  return size;
}

std::size_t Tensor::row_bytes() const {
  if (is_blocks()) return block_row_bytes(format_, shape_.back());
  return (shape_.empty() ? 1 : static_cast<std::size_t>(shape_.back())) * element_bytes(dtype_);
}

std::size_t Tensor::bytes() const {
  if (!is_blocks()) return static_cast<std::size_t>(size()) * element_bytes(dtype_);
  return block_row_bytes(format_, size());
}

bool Tensor::is_contiguous() const {
  if (size() == 0) return true;
  const auto wanted =
      is_blocks() ? block_strides(format_, shape_)
                  : contiguous_strides(shape_, static_cast<std::int64_t>(element_bytes(dtype_)));
  for (std::size_t i = 0; i < shape_.size(); ++i) {
    if (shape_[i] != 1 && strides_[i] != wanted[i]) return false;
  }
  return true;
}

void* Tensor::data() const {
  return storage_->memory == nullptr ? nullptr
                                     : static_cast<std::byte*>(storage_->memory.get()) + offset_;
}

Tensor Tensor::reshape(std::vector<std::int64_t> shape) const {
  std::int64_t known = 1;
  std::int64_t* guessed = nullptr;
  for (std::int64_t& dimension : shape) {
    if (dimension != -1) {
      if (dimension < 0 ||
          (dimension > 0 && known > std::numeric_limits<std::int64_t>::max() / dimension)) {
        invalid("cannot reshape to " + shape_text(shape), "shape");
      }
      known *= dimension;
    } else if (guessed != nullptr) {
      invalid("only one dimension of a reshape can be -1", "shape");
    } else {
      guessed = &dimension;
    }
  }
  const std::string asked = shape_text(shape);
  if (guessed != nullptr && known != 0 && size() % known == 0) {
    *guessed = size() / known;
    known *= *guessed;
  }
  if (known != size() || (guessed != nullptr && *guessed == -1)) {
    invalid("cannot reshape " + shape_text(shape_) + " to " + asked, "shape");
  }
  if (!is_contiguous()) {
    invalid("cannot reshape a tensor with strides " + shape_text(strides_) +
                " without a copy; call contiguous() first",
            "shape");
  }
  Tensor tensor = *this;
  if (is_blocks()) {
    const formats::TypeInfo* info = formats::type_info(static_cast<std::uint32_t>(format_));
    if (shape.empty() || shape.back() % info->elements != 0) {
      invalid("cannot reshape to " + asked + ": its last dimension would cut the " +
                  std::to_string(info->elements) + "-weight blocks of " + info->name,
              "shape");
    }
    tensor.strides_ = block_strides(format_, shape);
  } else {
    tensor.strides_ = contiguous_strides(shape, static_cast<std::int64_t>(element_bytes(dtype_)));
  }
  tensor.shape_ = std::move(shape);
  return tensor;
}

Tensor Tensor::slice(std::int64_t first, std::int64_t count, std::int64_t step) const {
  if (shape_.empty()) invalid("a tensor without dimensions cannot be sliced", "index");
  const std::int64_t length = shape_[0];
  const bool inside =
      count >= 0 && first >= 0 && first <= length &&
      (count == 0 || (first < length && first + static_cast<__int128>(count - 1) * step < length &&
                      first + static_cast<__int128>(count - 1) * step >= 0));
  if (!inside) {
    invalid("rows " + std::to_string(first) + " and " + std::to_string(count) +
                " more are outside the " + std::to_string(length) + " there are",
            "index");
  }
  Tensor tensor = *this;
  if (is_blocks() && shape_.size() == 1) {
    const formats::TypeInfo* info = formats::type_info(static_cast<std::uint32_t>(format_));
    if (step != 1 || first % info->elements != 0 || count % info->elements != 0) {
      invalid(std::string("a slice of ") + info->name + " must begin and end at whole blocks of " +
                  std::to_string(info->elements) + " weights",
              "index");
    }
    tensor.offset_ += block_row_bytes(format_, first);
  } else {
    tensor.offset_ =
        static_cast<std::size_t>(static_cast<std::int64_t>(offset_) + first * strides_[0]);
    if (count > 1) tensor.strides_[0] *= step;  // of one index a step of any size is allowed
  }
  tensor.shape_[0] = count;
  return tensor;
}

Tensor Tensor::row(std::int64_t index) const {
  if (shape_.empty() || (is_blocks() && shape_.size() == 1)) {
    invalid("a single weight of a block has no address; slice whole blocks or dequantize", "index");
  }
  if (index < 0 || index >= shape_[0]) {
    invalid("index " + std::to_string(index) + " is outside the " + std::to_string(shape_[0]) +
                " there are",
            "index");
  }
  Tensor tensor = slice(index, 1);
  tensor.shape_.erase(tensor.shape_.begin());
  tensor.strides_.erase(tensor.strides_.begin());
  return tensor;
}

Tensor Tensor::as_bytes() const {
  if (!is_blocks()) {
    if (!is_contiguous() || shape_.empty()) {
      invalid("as_bytes() needs a contiguous tensor with dimensions", "tensor");
    }
  }
  Tensor tensor = *this;
  tensor.dtype_ = DType::u8;
  tensor.shape_.back() = static_cast<std::int64_t>(row_bytes());
  tensor.strides_.back() = 1;
  return tensor;
}

Tensor Tensor::clone() const {
  Tensor tensor = *this;
  tensor.storage_ = make_storage(device(), bytes(), "a copy of a tensor");
  tensor.offset_ = 0;
  tensor.strides_ =
      is_blocks() ? block_strides(format_, shape_)
                  : contiguous_strides(shape_, static_cast<std::int64_t>(element_bytes(dtype_)));
  if (is_contiguous()) {
    copy(tensor.data(), device(), data(), device(), bytes(), stream());
  } else {
    copy_strided(*this, tensor.data());
  }
  return tensor;
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::to(const Device& target) const {
  if (target == device()) return *this;
  require_usable(target);
  const Tensor source = contiguous();
  Tensor tensor = source;
  tensor.storage_ = make_storage(target, bytes(), "a tensor");
  tensor.offset_ = 0;
  const Device& worker = target.type == DeviceType::cuda ? target : device();
  const Stream on = target.type == DeviceType::cuda ? tensor.stream() : stream();
  const bool between_gpus = device().type == DeviceType::cuda && target.type == DeviceType::cuda;
  if (between_gpus) order(device(), stream(), on);
  if (device().type == DeviceType::cpu && bytes() >= pageable_limit) {
    const auto* begin = static_cast<const std::byte*>(source.data());
    Transfer whole;
    whole.name = "a tensor";
    whole.source = {begin, bytes()};
    whole.destination = tensor.data();
    upload(target, {&whole, 1});
    return tensor;
  }
  copy(tensor.data(), target, source.data(), device(), bytes(), on);
  synchronize(worker, on);
  return tensor;
}

Tensor Tensor::dequantize(DType dtype, const Tensor* out) const {
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) {
    invalid(std::string("weights are dequantized to float32, float16 or bfloat16, not ") +
                dtype_name(dtype),
            "dtype");
  }
  format();
  if (out == nullptr) {
    const Tensor made = Tensor::empty(dtype, shape_, device());
    convert_weights(contiguous(), made);
    return made;
  }
  if (out->dtype() != dtype || out->shape() != shape_) {
    invalid(std::string("out is ") + dtype_name(out->dtype()) + " " + shape_text(out->shape()) +
                "; it must be " + dtype_name(dtype) + " " + shape_text(shape_),
            "out");
  }
  if (!(out->device() == device())) {
    invalid("out is on " + to_string(out->device()) + " and the tensor on " + to_string(device()),
            "out");
  }
  if (!out->is_contiguous()) invalid("out must be contiguous", "out");
  if (out->is_read_only()) invalid("out is read-only", "out");
  const Tensor source = contiguous();
  const auto begin = reinterpret_cast<std::uintptr_t>(source.data());
  const auto out_begin = reinterpret_cast<std::uintptr_t>(out->data());
  if (begin < out_begin + out->bytes() && out_begin < begin + source.bytes()) {
    invalid("out shares memory with the tensor", "out");
  }
  convert_weights(source, *out);
  return *out;
}

}  // namespace quantloom::device
