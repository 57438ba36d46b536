#include "device/exchange.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"

namespace quantloom::device {

namespace {

[[noreturn]] void invalid(const std::string& message, const char* subject) {
  throw Error(ErrorKind::invalid_argument, message, subject);
}

[[noreturn]] void larger_than_any_memory() {
  invalid("an array that is larger than any memory", "shape");
}

dlpack::DataType type_of(DType dtype) {
  const auto bits = static_cast<std::uint8_t>(8 * element_bytes(dtype));
  switch (dtype) {
    case DType::f32:
    case DType::f16:
    case DType::f64:
      return {dlpack::code_float, bits, 1};
    case DType::bf16:
      return {dlpack::code_bfloat, bits, 1};
    case DType::i8:
    case DType::i16:
    case DType::i32:
    case DType::i64:
      return {dlpack::code_integer, bits, 1};
    case DType::u8:
    case DType::u16:
    case DType::u32:
    case DType::u64:
      return {dlpack::code_unsigned, bits, 1};
    case DType::boolean:
      return {dlpack::code_bool, 8, 1};
    case DType::blocks:
      break;
  }
  invalid("quantized blocks have no DLPack type; hand out as_bytes() or dequantize()", "tensor");
}

DType dtype_of(const dlpack::DataType& type) {
  for (const DType dtype :
       {DType::f32, DType::f16, DType::bf16, DType::f64, DType::i8, DType::i16, DType::i32,
        DType::i64, DType::u8, DType::u16, DType::u32, DType::u64, DType::boolean}) {
    const dlpack::DataType known = type_of(dtype);
    if (known.code == type.code && known.bits == type.bits && type.lanes == 1) return dtype;
  }
  invalid("a DLPack array of type code " + std::to_string(type.code) + " with " +
              std::to_string(type.bits) + " bits and " + std::to_string(type.lanes) +
              " lanes has no quantloom type",
          "dtype");
}

// What an exported array points into, kept until its deleter runs.
template <class Record>
struct Export {
  Tensor tensor;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  Record record;
};

template <class Record>
Record* make_export(const Tensor& tensor) {
  auto exported = std::make_unique<Export<Record>>();
  exported->tensor = tensor;
  exported->shape = tensor.shape();
  const dlpack::DataType type = type_of(tensor.dtype());
  const auto element = static_cast<std::int64_t>(element_bytes(tensor.dtype()));
  for (const std::int64_t stride : tensor.strides()) exported->strides.push_back(stride / element);
  Record& record = exported->record;
  record = Record{};
  record.array.data = tensor.size() == 0 ? nullptr : tensor.data();
  record.array.device = tensor.device().type == DeviceType::cpu
                            ? dlpack::Device{dlpack::cpu, 0}
                            : dlpack::Device{dlpack::cuda, tensor.device().index};
  record.array.dimensions = static_cast<std::int32_t>(exported->shape.size());
  record.array.dtype = type;
  record.array.shape = exported->shape.data();
  record.array.strides = exported->strides.data();
  record.context = exported.get();
  record.deleter = [](Record* self) { delete static_cast<Export<Record>*>(self->context); };
  return &exported.release()->record;
}

Device device_of(const dlpack::Device& device) {
  switch (device.type) {
    case dlpack::cpu:
    case dlpack::cuda_host:
      return {DeviceType::cpu, 0};
    case dlpack::cuda:
    case dlpack::cuda_managed:
      return {DeviceType::cuda, device.index};
    default:
      invalid("a DLPack array on device type " + std::to_string(device.type) +
                  " is neither on the CPU nor on a CUDA GPU",
              "device");
  }
}

template <class Record>
Tensor import(Record* managed, bool read_only) {
  const std::shared_ptr<void> owner(managed, [](Record* record) {
    const dlpack::Device& at = record->array.device;
    const bool on_gpu = at.type == dlpack::cuda || at.type == dlpack::cuda_managed;
    try {
      // Its owner may reuse the memory at once, on streams that know nothing of ours.
      const Device device{DeviceType::cuda, at.index};
      if (on_gpu && !poisoned(at.index)) synchronize(device, compute_stream(device));
    } catch (const Error&) {  // a deleter must not throw; the memory goes back all the same
    }
    if (record->deleter != nullptr) record->deleter(record);
  });
  const dlpack::Array& array = managed->array;
  const DType dtype = dtype_of(array.dtype);
  const Device device = device_of(array.device);
  require_usable(device);
  if (array.dimensions < 0) invalid("a DLPack array of negative dimensions", "shape");
  if (array.dimensions > 0 && array.shape == nullptr) {
    invalid("a DLPack array of dimensions without a shape", "shape");
  }
  const auto element = static_cast<std::int64_t>(element_bytes(dtype));
  const auto count = static_cast<std::size_t>(array.dimensions);
  std::vector<std::int64_t> shape(array.shape, array.shape + count);
  std::vector<std::int64_t> strides(count);
  std::int64_t next = element;
  for (std::size_t i = count; i-- > 0;) {
    const bool given = array.strides != nullptr;
    if (__builtin_mul_overflow(given ? array.strides[i] : 1, given ? element : next, &strides[i]) ||
        __builtin_mul_overflow(std::max<std::int64_t>(shape[i], 1), next, &next)) {
      larger_than_any_memory();
    }
  }
  const auto [low, high] = reach_of(shape, strides, element);
  if (high > low && array.data == nullptr) invalid("a DLPack array of no memory", "data");
  // The storage begins at the lowest byte that the strides reach.
  auto* begin = static_cast<std::byte*>(array.data) + array.byte_offset + low;
  auto storage = wrap_storage(device, array.data == nullptr ? nullptr : begin,
                              static_cast<std::size_t>(high - low), owner, read_only);
  return Tensor::view(std::move(storage), dtype, std::move(shape), std::move(strides),
                      static_cast<std::size_t>(-low));
}

}  // namespace

Reach reach_of(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
               std::int64_t element_bytes) {
  Reach reach{0, element_bytes};
  bool empty = false;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0) invalid("an array with a negative dimension", "shape");
    std::int64_t way = 0;
    if (__builtin_mul_overflow(std::max<std::int64_t>(shape[i] - 1, 0), strides[i], &way)) {
      larger_than_any_memory();
    }
    std::int64_t& end = way < 0 ? reach.low : reach.high;
    if (__builtin_add_overflow(end, way, &end)) larger_than_any_memory();
    empty = empty || shape[i] == 0;
  }
  return empty ? Reach{} : reach;
}

Stream stream_from_protocol(std::int64_t stream) {
  if (stream <= 0) {
    invalid("stream " + std::to_string(stream) +
                " is not one of 1 (legacy default), 2 (per-thread default) or a handle",
            "stream");
  }
  return reinterpret_cast<Stream>(static_cast<std::uintptr_t>(stream));
}

std::int64_t stream_to_protocol(Stream stream) {
  return stream == nullptr ? 1
                           : static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(stream));
}

void hand_out(const Tensor& tensor, Stream consumer) {
  hand_out_unordered(tensor);
  order(tensor.device(), tensor.stream(), consumer);
}

void hand_out_unordered(const Tensor& tensor) {
  if (tensor.device().type == DeviceType::cpu) return;
  mark_shared(tensor.device(), tensor.storage()->memory.get());
}

dlpack::Managed* export_plain(const Tensor& tensor) { return make_export<dlpack::Managed>(tensor); }

dlpack::ManagedVersioned* export_versioned(const Tensor& tensor, bool copied) {
  dlpack::ManagedVersioned* managed = make_export<dlpack::ManagedVersioned>(tensor);
  managed->major = dlpack::major_version;
  managed->minor = dlpack::minor_version;
  managed->flags =
      (tensor.is_read_only() ? dlpack::flag_read_only : 0) | (copied ? dlpack::flag_copied : 0);
  return managed;
}

Tensor import_plain(dlpack::Managed* managed) { return import(managed, false); }

Tensor import_versioned(dlpack::ManagedVersioned* managed) {
  if (managed->major != dlpack::major_version) {
    // Only the members before `flags` have their place in every version.
    const std::string version =
        std::to_string(managed->major) + "." + std::to_string(managed->minor);
    if (managed->deleter != nullptr) managed->deleter(managed);
    invalid("DLPack " + version + " is not a version quantloom knows; it knows 1.x", "dlpack");
  }
  return import(managed, (managed->flags & dlpack::flag_read_only) != 0);
}

}  // namespace quantloom::device
